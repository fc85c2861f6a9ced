import { Command } from "commander";
import { helpEnding } from "../help.ts";
import { addTraceOption, collectOverride, integerFrom } from "../options.ts";

/** What `slipstream train` was asked. */
export interface TrainCommandOptions {
  /** A YAML or JSON file. */
  readonly config: string;
  /** `path.to.key=value`, later ones over earlier ones and all over the file. */
  readonly overrides: readonly string[];
  /** Ranks within this process. */
  readonly ranks: number;
  /** Go on from the last complete checkpoint of `output_dir`. */
  readonly resume: boolean;
  /** How often a run that failed goes on from its last complete checkpoint. */
  readonly maxRestarts: number;
  readonly trace?: string;
}

/** `slipstream train`, calling `run` with its checked options. */
export function defineTrain(run: (options: TrainCommandOptions) => Promise<void>): Command {
  const command = new Command("train")
    .description(
      "Train a language model from a config: from nothing, or on from a model folder. Writes metrics.jsonl, " +
        "loss.svg, checkpoints and, at the end, a Hugging Face model folder into the config's output_dir. " +
        "Ctrl-C saves a checkpoint and says how to resume.",
    )
    .argument("<CONFIG>", "a YAML or JSON file with DeepSpeed's keys and Slipstream's sections")
    .option(
      "--set <KEY=VALUE>",
      "replace one value of the config, by its path; may be repeated",
      collectOverride,
    )
    .option("--ranks <N>", "train with N ranks in this process", integerFrom(1, 1024), 1)
    .option("--resume", "go on from the last complete checkpoint in output_dir")
    .option(
      "--max-restarts <N>",
      "after a failure, go on from the last complete checkpoint, N times at most",
      integerFrom(0),
      0,
    );
  return addTraceOption(command)
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          ["slipstream train config.yaml", "train as the config says"],
          [
            "slipstream train config.yaml --set max_steps=100 --set optimizer.params.lr=1e-3",
            "try other values without touching the file",
          ],
          ["slipstream train config.yaml --ranks 2", "split the batch over two ranks of this process"],
          ["mpirun -n 4 slipstream train config.yaml", "as four processes, on one machine or several"],
          ["slipstream train config.yaml --resume", "go on where the last run stopped"],
        ],
        next: "`slipstream plan --help` tells memory and time beforehand; examples/ holds configs",
      }),
    )
    .action(
      async (
        config: string,
        options: { set?: string[]; ranks: number; resume?: boolean; maxRestarts: number; trace?: string },
      ) => {
        const { set: overrides = [], resume = false, ...rest } = options;
        await run({ config, overrides, resume, ...rest });
      },
    );
}
