import { expect, test } from "vitest";
import { loadOptionsOf } from "../options.ts";
import { defineGenerate, type GenerateCommandOptions } from "./generate.ts";

/** The options that a command line comes to. */
async function parse(...parameters: string[]): Promise<GenerateCommandOptions> {
  let found: GenerateCommandOptions | undefined;
  const command = defineGenerate(async (options) => {
    found = options;
  });
  await command
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .parseAsync(parameters, { from: "user" });
  return found!;
}

test("defaults", async () => {
  expect(await parse("model", "--prompt", "Once")).toEqual({
    model: "model",
    prompt: "Once",
    maxTokens: 128,
    temperature: 0.8,
    topK: 0,
    topP: 1,
    seed: 0,
    precision: "f32",
    backend: "native",
  });
});

test("every option", async () => {
  const line =
    "m --ids 1,2,30 --max-tokens 5 --temperature 0 --top-k 40 --top-p 0.9 --seed 7 --json --precision bf16 --backend reference --trace t.json";
  expect(await parse(...line.split(" "))).toEqual({
    model: "m",
    ids: [1, 2, 30],
    maxTokens: 5,
    temperature: 0,
    topK: 40,
    topP: 0.9,
    seed: 7,
    json: true,
    precision: "bf16",
    backend: "reference",
    trace: "t.json",
  });
});

test("weights quantized at load", async () => {
  const int4 = await parse("m", "--prompt", "a", "--quant", "int4", "--group", "128");
  expect(loadOptionsOf(int4)).toEqual({ precision: "f32", quantization: { kind: "int4", group: 128 } });
  const plain = await parse("m", "--prompt", "a", "--quant", "int4", "--precision", "bf16");
  expect(loadOptionsOf(plain)).toEqual({ precision: "bf16", quantization: { kind: "int4", group: 32 } });
  expect(loadOptionsOf(await parse("m", "--prompt", "a", "--quant", "int8"))).toEqual({
    precision: "f32",
    quantization: { kind: "int8" },
  });
  expect(loadOptionsOf(await parse("m", "--prompt", "a"))).toEqual({ precision: "f32" });
  const alone = await parse("m", "--prompt", "a", "--group", "32");
  expect(() => loadOptionsOf(alone)).toThrow(/--quant int4 alone[\s\S]*no --quant/);
});

test("an empty prompt is a prompt, and one may begin with a dash", async () => {
  expect((await parse("m", "--prompt", "")).prompt).toBe("");
  expect((await parse("m", "--prompt", "- one")).prompt).toBe("- one");
});

test.each([
  ["m --prompt a --temperature -1", "Expected a number from 0 on."],
  ["m --prompt a --temperature hot", "Expected a number from 0 on."],
  ["m --prompt a --top-p 0", "Expected a number above 0, at most 1."],
  ["m --prompt a --top-p 1.5", "Expected a number above 0, at most 1."],
  ["m --prompt a --top-k -2", "Expected an integer, 0 or more."],
  ["m --prompt a --max-tokens 0", "Expected an integer, 1 or more."],
  ["m --prompt a --max-tokens 2.5", "Expected an integer, 1 or more."],
  ["m --ids 1,,2", '"" is not one'],
  ["m --ids 1,-2", '"-2" is not one'],
  ["m --ids 1 --prompt a", "cannot be used with option"],
  ["m", "expected: --prompt TEXT or --ids LIST"],
  ["--prompt a", "missing required argument 'MODEL'"],
  ["m --prompt a --precision f8", "Allowed choices are f32, bf16"],
  ["m --prompt a --quant int2", "Allowed choices are int8, int4"],
  ["m --prompt a --quant int4 --group 7", "Allowed choices are 32, 128"],
])("%s is refused: %s", async (line, message) => {
  await expect(parse(...line.split(" "))).rejects.toThrow(message);
});
