import { Command, Option } from "commander";
import { helpEnding } from "../help.ts";
import { modelArgument } from "../options.ts";

/** Types of matrices that `--type` names. */
export const convertTypes = ["f32", "bf16", "f16", "q8_0", "q4_0", "q4_k", "q5_k", "q6_k"] as const;

/** What `slipstream convert` was asked. */
export interface ConvertCommandOptions {
  readonly source: string;
  readonly target: string;
  readonly type?: (typeof convertTypes)[number];
  readonly quant?: "int8" | "int4";
  readonly group?: "32" | "128";
  /** The folder of config.json and tokenizer, for a source that has none. */
  readonly model?: string;
  readonly tokenizer: boolean;
  readonly force?: boolean;
}

/** `slipstream convert`, calling `run` with its checked options. */
export function defineConvert(run: (options: ConvertCommandOptions) => Promise<void>): Command {
  return new Command("convert")
    .description(
      "Write a model in another form: a Hugging Face folder as a GGUF file, a GGUF file as a folder, or a " +
        "folder with quantized weights (compressed-tensors). The tokenizer and the chat template come along. " +
        "A universal checkpoint of DeepSpeed, made of safetensors, becomes a folder with the optimizer's states in " +
        "checkpoint/, which `checkpoint.load_universal` of a training config continues from.",
    )
    .argument("<SOURCE>", `${modelArgument}, or a universal checkpoint (global_step10_universal)`)
    .argument("<TARGET>", "what to write: a file whose name ends with .gguf, or else a folder")
    .addOption(
      new Option(
        "--type <TYPE>",
        "the type of the matrices; default: the source's floats, or f32 where it is quantized",
      ).choices([...convertTypes]),
    )
    .addOption(
      new Option("--quant <KIND>", "write a quantized folder: int8 a channel, or int4 in groups").choices([
        "int8",
        "int4",
      ]),
    )
    .addOption(
      new Option("--group <N>", "inputs that share a scale with --quant int4").choices(["32", "128"]),
    )
    .option(
      "--model <FOLDER>",
      "config.json and tokenizer of a universal checkpoint; default: those in SOURCE",
    )
    .option("--no-tokenizer", "write a GGUF file although the source has no tokenizer")
    .option("--force", "replace TARGET where it exists")
    .addHelpText(
      "after",
      helpEnding({
        examples: [
          [
            "slipstream convert runs/first/model first.gguf --type q8_0",
            "a GGUF file, a quarter of the size",
          ],
          ["slipstream convert model.gguf model", "a Hugging Face folder, in floats"],
          ["slipstream convert model model-int4 --quant int4", "a quantized folder that vLLM reads too"],
          [
            "slipstream convert global_step10_universal continued --model base",
            "what DeepSpeed trained from the folder base",
          ],
        ],
        next: "`slipstream eval --help` measures what a conversion cost",
      }),
    )
    .action(
      async (source: string, target: string, options: Omit<ConvertCommandOptions, "source" | "target">) => {
        await run({ ...options, source, target });
      },
    );
}
