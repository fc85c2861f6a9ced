import { type Command, InvalidArgumentError, Option } from "commander";
import { ConfigError } from "../base/errors.ts";
import type { LoadOptions, Quantization } from "../models/index.ts";

/** A parser of an option that takes an integer from `low` to `high`. */
export function integerFrom(low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^[+-]?\d+$/.test(text.trim()) && value >= low && value <= high) return value;
    const range = high === Number.MAX_SAFE_INTEGER ? `${low} or more` : `from ${low} to ${high}`;
    throw new InvalidArgumentError(`Expected an integer, ${range}.`);
  };
}

/** A parser of an option that takes a number from `low` on, or above it where `low` itself is no choice. */
export function numberFrom(
  low: number,
  high: number,
  options: { readonly above?: boolean } = {},
): (text: string) => number {
  return (text) => {
    const value = Number(text);
    const highEnough = options.above === true ? value > low : value >= low;
    if (text.trim() !== "" && Number.isFinite(value) && highEnough && value <= high) return value;
    const start = options.above === true ? `above ${low}` : `from ${low} on`;
    throw new InvalidArgumentError(
      `Expected a number ${start}${high === Number.POSITIVE_INFINITY ? "" : `, at most ${high}`}.`,
    );
  };
}

/** Token ids as a list: `1,2,3`. */
export function parseIds(text: string): number[] {
  const pieces = text.split(",").map((piece) => piece.trim());
  const wrong = pieces.find((piece) => !/^\d+$/.test(piece) || !Number.isSafeInteger(Number(piece)));
  if (wrong === undefined) return pieces.map(Number);
  throw new InvalidArgumentError(
    `Expected token ids separated by commas, such as 1,2,3; ${JSON.stringify(wrong)} is not one.`,
  );
}

/** Adds one `path.to.key=value` to those given before. */
export function collectOverride(text: string, previous: readonly string[] = []): string[] {
  if (/^[^=\s]+=/.test(text)) return [...previous, text];
  throw new InvalidArgumentError(
    "Expected path.to.key=value, such as optimizer.params.lr=3e-4, without spaces around the equals sign.",
  );
}

/** Refuses options of which exactly one must be given, where none is. */
export function requireOneOf(
  given: readonly (readonly [flag: string, value: unknown])[],
  purpose: string,
): void {
  if (given.some(([, value]) => value !== undefined)) return;
  throw new ConfigError("missing_option", `${purpose} is missing`, {
    expected: given.map(([flag]) => flag).join(" or "),
  });
}

/** What commands say of their MODEL. */
export const modelArgument =
  "a Hugging Face folder (config.json, model.safetensors, tokenizer.json) or a .gguf file";

/** Adds `--trace FILE` to a command that runs programs. */
export function addTraceOption(command: Command): Command {
  return command.option(
    "--trace <FILE>",
    "write a timeline of every program and kernel to FILE; https://ui.perfetto.dev opens it",
  );
}

/** Adds how a model is run: `--precision`, `--quant`, `--group`, `--backend` and `--trace`. */
export function addModelOptions(command: Command): Command {
  command
    .addOption(
      new Option("--precision <TYPE>", "numbers to compute in; bf16 halves the memory")
        .choices(["f32", "bf16"])
        .default("f32"),
    )
    .addOption(
      new Option(
        "--quant <KIND>",
        "quantize the weights when they are loaded: int8, or int4 with a scale for each group of inputs",
      ).choices(["int8", "int4"]),
    )
    .addOption(
      new Option("--group <N>", "inputs that share a scale with --quant int4").choices(["32", "128"]),
    )
    .addOption(
      new Option("--backend <NAME>", "native kernels, or slow float64 TypeScript for checks on tiny models")
        .choices(["native", "reference"])
        .default("native"),
    );
  return addTraceOption(command);
}

/** What `addModelOptions` gives. */
export interface ModelOptions {
  readonly precision: "f32" | "bf16";
  readonly quant?: "int8" | "int4";
  readonly group?: "32" | "128";
  readonly backend: "native" | "reference";
  readonly trace?: string;
}

/** What a model is loaded with. @throws ConfigError for `--group` without `--quant int4`. */
export function loadOptionsOf({ precision, quant, group }: ModelOptions): LoadOptions {
  if (group !== undefined && quant !== "int4") {
    throw new ConfigError("bad_option", "--group goes with --quant int4 alone", {
      expected: `--quant int4 --group ${group}`,
      received: quant === undefined ? "no --quant" : `--quant ${quant}`,
    });
  }
  if (quant === undefined) return { precision };
  const quantization: Quantization =
    quant === "int8" ? { kind: "int8" } : { kind: "int4", group: group === "128" ? 128 : 32 };
  return { precision, quantization };
}
