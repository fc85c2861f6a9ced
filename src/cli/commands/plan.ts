import { Command } from "commander";
import { helpEnding } from "../help.ts";
import { collectOverride, integerFrom } from "../options.ts";

/** What `slipstream plan` was asked. */
export interface PlanCommandOptions {
  /** A YAML or JSON file. */
  readonly config: string;
  /** `path.to.key=value`, later ones over earlier ones and all over the file. */
  readonly overrides: readonly string[];
  readonly ranks: number;
  /** A YAML or JSON file that describes the machines. */
  readonly cluster?: string;
  /** How many of the best layouts to print instead of a plan. */
  readonly search?: number;
  readonly json?: boolean;
}

/** `slipstream plan`, calling `run` with its checked options. */
export function definePlan(run: (options: PlanCommandOptions) => Promise<void>): Command {
  return new Command("plan")
    .description(
      "Tell what training from a config would take, without running it: memory of each rank by kind, bytes " +
        "communicated, arithmetic and estimated time of a step.",
    )
    .argument("<CONFIG>", "a YAML or JSON file, as for `slipstream train`")
    .option(
      "--set <KEY=VALUE>",
      "replace one value of the config, by its path; may be repeated",
      collectOverride,
    )
    .option("--ranks <N>", "plan for N ranks", integerFrom(1, 65536), 1)
    .option(
      "--cluster <FILE>",
      "plan for the accelerators and links that a file describes, not for this machine",
    )
    .option(
      "--search <K>",
      "print the K layouts (axes, ZeRO stage) of the shortest steps that fit",
      integerFrom(1, 1000),
    )
    .option("--json", "print one JSON object instead of a table")
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          ["slipstream plan config.yaml", "will it fit, and how long is a step?"],
          [
            "slipstream plan config.yaml --set train_micro_batch_size_per_gpu=16",
            "what a larger micro-batch would take",
          ],
          [
            "slipstream plan config.yaml --ranks 64 --cluster examples/clusters/a100.yaml --search 5",
            "how to split it over 64 accelerators that you do not have",
          ],
        ],
        next: "`slipstream train --help`",
      }),
    )
    .action(
      async (
        config: string,
        options: { set?: string[]; ranks: number; cluster?: string; search?: number; json?: boolean },
      ) => {
        const { set: overrides = [], ...rest } = options;
        await run({ config, overrides, ...rest });
      },
    );
}
