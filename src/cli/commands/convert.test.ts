import { expect, test } from "vitest";
import { type ConvertCommandOptions, defineConvert } from "./convert.ts";

/** The options that a command line comes to. */
async function parse(line: string): Promise<ConvertCommandOptions> {
  let found: ConvertCommandOptions | undefined;
  const command = defineConvert(async (options) => {
    found = options;
  });
  await command
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .parseAsync(line.split(" "), { from: "user" });
  return found!;
}

test("defaults and every option", async () => {
  expect(await parse("a b.gguf")).toEqual({ source: "a", target: "b.gguf", tokenizer: true });
  expect(await parse("a b.gguf --type q4_k --no-tokenizer --force")).toEqual({
    source: "a",
    target: "b.gguf",
    type: "q4_k",
    tokenizer: false,
    force: true,
  });
  expect(await parse("a b --model c")).toMatchObject({ source: "a", target: "b", model: "c" });
  expect(await parse("a b --quant int4 --group 128")).toMatchObject({ quant: "int4", group: "128" });
});

test.each([
  ["a", "missing required argument 'TARGET'"],
  ["a b --type q9", "Allowed choices are f32, bf16, f16, q8_0, q4_0, q4_k, q5_k, q6_k"],
  ["a b --quant int2", "Allowed choices are int8, int4"],
  ["a b --quant int4 --group 64", "Allowed choices are 32, 128"],
])("%s is refused: %s", async (line, message) => {
  await expect(parse(line)).rejects.toThrow(message);
});
