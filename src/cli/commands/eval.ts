import { Command, Option } from "commander";
import { helpEnding } from "../help.ts";
import { addModelOptions, integerFrom, type ModelOptions, modelArgument, requireOneOf } from "../options.ts";

/** What `slipstream eval` was asked; exactly one of `text` and `idsFile` is there. */
export interface EvalCommandOptions extends ModelOptions {
  /** A model folder, or a GGUF file. */
  readonly model: string;
  /** A text file. */
  readonly text?: string;
  /** A JSON file of token ids. */
  readonly idsFile?: string;
  /** Tokens that the model sees at once. */
  readonly window?: number;
}

/** `slipstream eval`, calling `run` with its checked options. */
export function defineEval(run: (options: EvalCommandOptions) => Promise<void>): Command {
  const command = new Command("eval")
    .description(
      "Measure how well a language model predicts a text: the mean cross-entropy of the next token, in " +
        "nats, and its exponential, the perplexity. Prints one JSON object: loss, perplexity, and tokens, " +
        "the number of predictions.",
    )
    .argument("<MODEL>", modelArgument)
    .option("--text <FILE>", "a UTF-8 text file")
    .addOption(
      new Option(
        "--ids-file <FILE>",
        "a JSON file of token ids: one list, or a list of lists, each a document",
      ).conflicts("text"),
    )
    .option(
      "--window <N>",
      "cut documents into windows of N tokens, each predicted by itself; " +
        "default: the model's positions, at most 2048",
      integerFrom(2),
    );
  return addModelOptions(command)
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          ["slipstream eval runs/first/model --text book.txt", "loss and perplexity on a text"],
          ["slipstream eval MODEL --ids-file ids.json --window 512", "on ready token ids, 512 at a time"],
        ],
        next: "`slipstream generate --help` writes text with the model",
      }),
    )
    .action(async (model: string, options: Omit<EvalCommandOptions, "model">) => {
      requireOneOf(
        [
          ["--text FILE", options.text],
          ["--ids-file FILE", options.idsFile],
        ],
        "what to predict",
      );
      await run({ ...options, model });
    });
}
