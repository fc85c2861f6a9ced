import type { Command } from "commander";

/** A command of `slipstream`: known by name at once, loaded only when it runs. */
export interface RegisteredCommand {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** Imports what the command needs and defines it. */
  readonly load: () => Promise<Command>;
}

/** Every finished command, in the order of `slipstream --help`. */
export const registeredCommands: readonly RegisteredCommand[] = [
  {
    name: "doctor",
    summary: "show the backend, instruction set, compiler, MPI and Node in use, and why",
    load: async () =>
      (await import("./commands/doctor.ts")).defineDoctor(async (options) =>
        (await import("./doctor/run.ts")).runDoctor(options),
      ),
  },
];
