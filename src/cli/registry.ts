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
    name: "train",
    summary: "train a language model from a config",
    load: async () =>
      (await import("./commands/train.ts")).defineTrain(async (options) =>
        (await import("./train/run.ts")).runTrain(options),
      ),
  },
  {
    name: "generate",
    summary: "continue a prompt with a model",
    load: async () =>
      (await import("./commands/generate.ts")).defineGenerate(async (options) =>
        (await import("./generate/run.ts")).runGenerate(options),
      ),
  },
  {
    name: "serve",
    summary: "serve a model over HTTP, as OpenAI does",
    load: async () =>
      (await import("./commands/serve.ts")).defineServe(async (options) =>
        (await import("./serve/run.ts")).runServe(options),
      ),
  },
  {
    name: "eval",
    summary: "measure a model's loss and perplexity on a text",
    load: async () =>
      (await import("./commands/eval.ts")).defineEval(async (options) =>
        (await import("./eval/run.ts")).runEval(options),
      ),
  },
  {
    name: "convert",
    summary: "write a model as GGUF, as a Hugging Face folder, or quantized",
    load: async () =>
      (await import("./commands/convert.ts")).defineConvert(async (options) =>
        (await import("./convert/run.ts")).runConvert(options),
      ),
  },
  {
    name: "plan",
    summary: "tell what training from a config would take",
    load: async () =>
      (await import("./commands/plan.ts")).definePlan(async (options) =>
        (await import("./plan/run.ts")).runPlan(options),
      ),
  },
  {
    name: "build",
    summary: "compile the native kernels for this machine",
    load: async () =>
      (await import("./commands/build.ts")).defineBuild(async () => {
        await (await import("../runtime/native/build.ts")).buildNative();
        await (await import("../runtime/native/build_mpi.ts")).buildMpi();
      }),
  },
  {
    name: "bench",
    summary: "measure Slipstream and its peers in the same run",
    load: async () => {
      const { defineBench } = await import("./commands/bench.ts");
      const { benchNames } = await import("./bench/suite.ts");
      return defineBench(benchNames, async (options) => (await import("./bench/run.ts")).runBench(options));
    },
  },
  {
    name: "doctor",
    summary: "show what this machine has, what is in use, and why",
    load: async () =>
      (await import("./commands/doctor.ts")).defineDoctor(async (options) =>
        (await import("./doctor/run.ts")).runDoctor(options),
      ),
  },
];
