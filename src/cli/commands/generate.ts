import { Command, Option } from "commander";
import { helpEnding } from "../help.ts";
import {
  addModelOptions,
  integerFrom,
  type ModelOptions,
  modelArgument,
  numberFrom,
  parseIds,
  requireOneOf,
} from "../options.ts";

/** What `slipstream generate` was asked; exactly one of `prompt` and `ids` is there. */
export interface GenerateCommandOptions extends ModelOptions {
  /** A model folder, or a GGUF file. */
  readonly model: string;
  readonly prompt?: string;
  readonly ids?: readonly number[];
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  readonly json?: boolean;
}

/** `slipstream generate`, calling `run` with its checked options. */
export function defineGenerate(run: (options: GenerateCommandOptions) => Promise<void>): Command {
  const command = new Command("generate")
    .description(
      "Continue a prompt with a language model, token by token, with a key/value cache. " +
        "The text is printed as it comes.",
    )
    .argument("<MODEL>", modelArgument)
    .option("--prompt <TEXT>", "the text to continue; may be empty")
    .addOption(
      new Option("--ids <LIST>", "the token ids to continue, such as 1,2,3")
        .argParser(parseIds)
        .conflicts("prompt"),
    )
    .option(
      "--max-tokens <N>",
      "stop after N new tokens, or where the model ends the text",
      integerFrom(1),
      128,
    )
    .option(
      "--temperature <T>",
      "0 takes the likeliest token every time (greedy); higher is more random",
      numberFrom(0, Number.POSITIVE_INFINITY),
      0.8,
    )
    .option("--top-k <K>", "choose among the K likeliest tokens; 0 for all", integerFrom(0), 0)
    .option(
      "--top-p <P>",
      "choose among the likeliest tokens that together reach probability P",
      numberFrom(0, 1, { above: true }),
      1,
    )
    .option("--seed <S>", "the same seed gives the same text", integerFrom(0), 0)
    .option("--json", "print one object when done: prompt_ids, ids (the new tokens) and text");
  return addModelOptions(command)
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          ['slipstream generate runs/first/model --prompt "Call me"', "continue a text"],
          ["slipstream generate MODEL --prompt Once --temperature 0 --max-tokens 40", "the likeliest text"],
          ["slipstream generate MODEL --ids 1,15,27 --json", "token ids in, token ids out, for programs"],
        ],
        next: "`slipstream eval --help` measures how well a model predicts a text",
      }),
    )
    .action(async (model: string, options: Omit<GenerateCommandOptions, "model">) => {
      requireOneOf(
        [
          ["--prompt TEXT", options.prompt],
          ["--ids LIST", options.ids],
        ],
        "what to continue",
      );
      await run({ ...options, model });
    });
}
