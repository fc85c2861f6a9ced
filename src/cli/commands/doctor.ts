import { Command } from "commander";
import { helpEnding } from "../help.ts";

/** Options of `slipstream doctor`. */
export interface DoctorOptions {
  /** Print one JSON object in place of the table. */
  readonly json?: boolean;
}

/** `slipstream doctor`, calling `run` with its options. */
export function defineDoctor(run: (options: DoctorOptions) => Promise<void>): Command {
  return new Command("doctor")
    .description(
      "Show which backend, instruction set, compiler, MPI and Node are in use on this machine, and why: " +
        "the first thing to look at when something is slow or does not start.",
    )
    .option("--json", "print one JSON object instead of a table")
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          ["slipstream doctor", "the table"],
          ["SLIPSTREAM_ISA=avx2 slipstream doctor", "what changes when kernels may use no more than AVX2"],
          ["slipstream doctor --json", "the same for programs"],
        ],
        next: "README.md (set-up), docs/architecture.md (how kernels are chosen)",
      }),
    )
    .action(run);
}
