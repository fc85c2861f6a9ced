import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { createNativeBackend } from "../../src/backends.ts";
import { generate, loadModelWith, type Model, type Quantization } from "../../src/models/index.ts";

const folder = join(dirname(fileURLToPath(import.meta.url)), "../../../shared/data/stories260K");
const backend = createNativeBackend();

/** The perplexity of documents, predicted token by token. */
async function perplexity(model: Model, documents: readonly (readonly number[])[]): Promise<number> {
  const { loss } = await model.loss(documents);
  return Math.exp(loss);
}

// A model's own samples at temperature 1 are text of its distribution: whatever another model does with them, the mean
// loss rises by the divergence of the two (Kullback and Leibler, 1951).
describe.skipIf(!existsSync(folder))("stories260K (skipped where shared/data is absent)", () => {
  const stories: number[][] = [];
  let exact = 0;

  beforeAll(async () => {
    const model = await loadModelWith(backend, folder);
    for (let seed = 0; seed < 16; seed++) {
      const story = [1];
      for await (const id of generate(model, [1], { maxTokens: 255, temperature: 1, seed })) story.push(id);
      stories.push(story);
    }
    exact = await perplexity(model, stories);
  }, 120_000);

  test.each<[string, Quantization, number]>([
    ["int8", { kind: "int8" }, 1.01],
    ["int4", { kind: "int4", group: 32 }, 1.05],
  ])("perplexity with weights in %s", async (_name, quantization, bar) => {
    for (const precision of ["f32", "bf16"] as const) {
      const model = await loadModelWith(backend, folder, { precision, quantization });
      const ratio = (await perplexity(model, stories)) / exact;
      expect(ratio, precision).toBeLessThanOrEqual(bar);
      expect(ratio, precision).toBeGreaterThan(0.99);
    }
  });
});
