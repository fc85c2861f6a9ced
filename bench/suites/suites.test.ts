import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { benchSuites, type RunSuite } from "../../src/cli/bench/suite.ts";
import { checkLosses } from "./training.ts";

test("the command's list of suites is what lies here", () => {
  const files = readdirSync(new URL(".", import.meta.url)).filter((file) => !file.endsWith(".test.ts"));
  expect(files.sort()).toEqual(benchSuites.map(({ name }) => `${name}.ts`).sort());
});

test.each(benchSuites)("$name can be loaded", async ({ name }) => {
  const suite = (await import(new URL(`${name}.ts`, import.meta.url).href)) as { readonly run: RunSuite };
  expect(suite.run).toBeTypeOf("function");
});

test("training that does not learn reports no speed", () => {
  expect(() => checkLosses([8.4, 7.9, 7.5], 4096)).not.toThrow();
  expect(() => checkLosses([5, 4, 3], 4096)).toThrow("is not ln(4096) = 8.3178");
  expect(() => checkLosses([8.4, 7.9, 8], 4096)).toThrow("rose in step 3");
  expect(() => checkLosses([8.4, Number.NaN], 4096)).toThrow("rose in step 2");
});
