import { expect, test } from "vitest";
import { defineEval, type EvalCommandOptions } from "./eval.ts";

/** The options that a command line comes to. */
async function parse(line: string): Promise<EvalCommandOptions> {
  let found: EvalCommandOptions | undefined;
  const command = defineEval(async (options) => {
    found = options;
  });
  await command
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .parseAsync(line.split(" "), { from: "user" });
  return found!;
}

test("the window is the model's unless it is given", async () => {
  expect(await parse("m --text book.txt")).toEqual({
    model: "m",
    text: "book.txt",
    precision: "f32",
    backend: "native",
  });
  expect(await parse("m --ids-file ids.json --window 64")).toMatchObject({ idsFile: "ids.json", window: 64 });
});

test.each([
  ["m", "expected: --text FILE or --ids-file FILE"],
  ["m --text a --ids-file b", "cannot be used with option"],
  ["m --text a --window 1", "Expected an integer, 2 or more."],
])("%s is refused: %s", async (line, message) => {
  await expect(parse(line)).rejects.toThrow(message);
});
