import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/index.ts";
import { generate, loadModel } from "../../src/index.ts";

const golden = join(dirname(fileURLToPath(import.meta.url)), "../golden");
const families = readdirSync(join(golden, "models"));

/** The largest difference, relative to the largest expected value: the measure of CORRECTNESS.md. */
function error(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  let difference = 0;
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!));
    difference = Math.max(difference, Math.abs(actual[i]! - expected[i]!));
  }
  return difference / largest;
}

interface Golden {
  readonly sequences: number[][];
  readonly loss: number;
  readonly greedy: { readonly prompt: number[]; readonly ids: number[] };
}

async function collect(tokens: AsyncIterable<number>): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of tokens) ids.push(id);
  return ids;
}

describe.each(families)("%s against PyTorch", (family) => {
  const folder = join(golden, "models", family);
  const expected = JSON.parse(readFileSync(join(folder, "golden.json"), "utf8")) as Golden;

  test.each(["native", "reference"] as const)("logits, loss and every gradient, %s", async (backend) => {
    const model = await loadModel(folder, { backend });
    const reader = await openSafetensors(join(folder, "golden.safetensors"));
    for (const [index, sequence] of expected.sequences.entries()) {
      const logits = await (await model.forward([sequence])).data();
      const reference = await reader.read(`logits.${index}`);
      expect(error(logits, reference)).toBeLessThan(2e-4);
    }
    const { loss, gradients } = await model.lossAndGradients(expected.sequences);
    expect(Math.abs(loss - expected.loss) / expected.loss).toBeLessThan(1e-5);
    const names = reader.names().filter((name) => name.startsWith("gradient."));
    expect([...gradients.keys()].sort()).toEqual(names.map((name) => name.slice("gradient.".length)).sort());
    for (const [name, gradient] of gradients) {
      const reference = await reader.read(`gradient.${name}`);
      expect(error(await gradient.data(), reference), name).toBeLessThan(2e-4);
    }
    await reader.close();
  });

  test("greedy tokens through the cache", async () => {
    const model = await loadModel(folder);
    const { prompt, ids } = expected.greedy;
    expect(await collect(generate(model, prompt, { maxTokens: ids.length }))).toEqual(ids);
  });
});

const story = join(golden, "../../../shared/data/stories260K");
describe.skipIf(!existsSync(story))("stories260K (skipped where shared/data is absent)", () => {
  interface Story {
    readonly greedy: { readonly ids: number[] };
  }
  const expected = JSON.parse(readFileSync(join(golden, "stories260K/golden.json"), "utf8")) as Story;

  test("writes the published story", async () => {
    const model = await loadModel(story);
    const ids = await collect(generate(model, [1], { maxTokens: expected.greedy.ids.length }));
    expect(ids).toEqual(expected.greedy.ids);
  });
});
