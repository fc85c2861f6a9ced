import { describe, expect, test } from "vitest";
import { createNativeBackend, createNullBackend } from "../../backends.ts";
import { familyOf } from "../../models/index.ts";
import { ParameterSpace } from "../../nn/parameters.ts";
import { resolveBatch } from "../config/index.ts";
import { type TrainConfig, trainConfigSchema } from "../config/schema/schema.ts";
import { buildEngine, buildModel } from "../setup.ts";
import { formatPlan } from "./format.ts";
import { measureMachine } from "./machine.ts";
import { countModules } from "./modules.ts";
import { modelToPlan, type PlanParts, planTraining } from "./plan.ts";

const model = {
  type: "llama",
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 96,
  max_position_embeddings: 64,
};

function config(changes: object = {}): TrainConfig {
  return trainConfigSchema.parse({
    model,
    data: { train: "text.txt", sequence_length: 16 },
    output_dir: "out",
    train_batch_size: 8,
    train_micro_batch_size_per_gpu: 4,
    optimizer: { type: "AdamW", params: { lr: 1e-3 } },
    scheduler: { type: "WarmupLR", params: {} },
    ...changes,
  });
}

async function plan(changes: object = {}, more: Partial<PlanParts> = {}) {
  const parsed = config(changes);
  const backend = createNullBackend({ threads: 2 });
  return planTraining({
    config: parsed,
    model: await buildModel(parsed, undefined),
    backend,
    baselineBytes: 1000,
    ...more,
  });
}

// q and o, k and v of half as many heads, three products of the MLP, two norms.
const layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64 + 2 * 32;
const count = 3 * layer + 2 * 96 * 32 + 32;

describe("what a plan counts", () => {
  test("parameters, by module", async () => {
    const { parameters } = await plan();
    expect(parameters).toMatchObject({ total: count, trained: count });
    expect(parameters.modules).toEqual([
      { name: "model.embed_tokens", modules: 1, parameters: 96 * 32 },
      { name: "model.layers.*.input_layernorm", modules: 3, parameters: 3 * 32 },
      { name: "model.layers.*.self_attn", modules: 3, parameters: 3 * (2 * 32 * 32 + 2 * 32 * 16) },
      { name: "model.layers.*.post_attention_layernorm", modules: 3, parameters: 3 * 32 },
      { name: "model.layers.*.mlp", modules: 3, parameters: 3 * 3 * 32 * 64 },
      { name: "model.norm", modules: 1, parameters: 32 },
      { name: "lm_head", modules: 1, parameters: 96 * 32 },
    ]);
  });

  test("names of other families", () => {
    const space = ParameterSpace.create();
    const sizes = { n_embd: 8, n_layer: 2, n_head: 2, n_positions: 16, vocab_size: 10 };
    familyOf({ model_type: "gpt2", ...sizes }, "test").build({ model_type: "gpt2", ...sizes }, space, "test");
    const names = countModules(space.table).map(({ name }) => name);
    expect(names.filter((name) => name.includes(".*."))).toHaveLength(4);
  });

  test("memory that lasts, from sizes alone", async () => {
    const { memory, batch } = await plan();
    expect(memory.parameters).toBe(4 * count);
    expect(memory.gradients).toBe(4 * count);
    expect(memory.optimizer).toBe(8 * count);
    expect(memory.data).toBe(2 * 4 * (3 * 64 + 5));
    expect(batch).toMatchObject({ accumulationSteps: 2, microBatchTokens: 64, tokensPerStep: 128 });
    const { total, ...kinds } = memory;
    expect(total).toBe(Object.values(kinds).reduce((sum, bytes) => sum + bytes));
  });

  test("frozen parameters have no gradients and no states", async () => {
    const { memory, parameters } = await plan({ frozen_parameters: ["model.embed_tokens.*"] });
    expect(memory.gradients).toBe(4 * (count - 96 * 32));
    expect(memory.optimizer).toBe(8 * (count - 96 * 32));
    expect(memory.parameters).toBe(4 * count);
    expect(parameters.trained).toBe(count - 96 * 32);
  });

  test("arithmetic: products three times, twice in the backward pass, and visible scores", async () => {
    const { flops } = await plan();
    // Embeddings are looked up; the rest multiplies every token.
    const products = 6 * (3 * layer - 3 * 64 + 96 * 32) * 128;
    // Two products over the visible pairs of each of 8 rows forward, five backward.
    const pairs = (16 * 17) / 2;
    const scores = 3 * 7 * 2 * 32 * 8 * pairs;
    expect(flops.model / (products + scores)).toBeCloseTo(1, 1);
    expect(flops.model).toBeGreaterThanOrEqual(products);
    expect(flops.hardware).toBeGreaterThan(flops.model);
    expect(flops.sixND).toBe(6 * count * 128);
  });

  test("recomputation trades memory for arithmetic, and no model FLOPs", async () => {
    const none = await plan();
    const every = await plan({ activation_checkpointing: { mode: "every_block" } });
    expect(every.memory.activations).toBeLessThan(none.memory.activations);
    expect(every.flops.hardware).toBeGreaterThan(none.flops.hardware);
    expect(every.flops.model).toBe(none.flops.model);
    expect(every.memory.packedWeights).toBe(none.memory.packedWeights);
  });

  test("accumulation takes no more memory for values; evaluation adds a program", async () => {
    const whole = await plan({ train_batch_size: 4 });
    const halves = await plan();
    expect(halves.memory.activations).toBe(whole.memory.activations);
    expect(halves.memory.packedWeights).toBe(whole.memory.packedWeights);
    expect(whole.memory.evaluation).toBe(0);
    const data = { train: "text.txt", validation: 0.1, sequence_length: 16 };
    expect((await plan({ data })).memory.evaluation).toBeGreaterThan(0);
  });

  test("time by the slower of arithmetic and traffic", async () => {
    const slow = { flops: 1e9, bandwidth: 1e30 };
    const { time, flops } = await plan({}, { machine: slow });
    expect(time!.seconds).toBeCloseTo(flops.hardware / 1e9, 9);
    expect(time!.tokensPerSecond).toBeCloseTo(128 / time!.seconds, 9);
    expect(time!.utilization).toBeCloseTo(flops.model / flops.hardware, 9);
    expect((await plan()).time).toBeUndefined();
  });
});

test("a plan holds what the engine then takes", async () => {
  const parsed = config({ bf16: { enabled: true } });
  const shape = await buildModel(parsed, undefined);
  const engine = buildEngine(parsed, resolveBatch(parsed, 1), shape, createNativeBackend({ threads: 1 }));
  const { memory, flops } = await plan({ bf16: { enabled: true } });
  const bytes = (name: string): number => engine.buffers.get(name)!.byteLength;
  expect(memory.parameters).toBe(bytes("parameters"));
  expect(memory.gradients).toBe(bytes("gradients"));
  expect(memory.optimizer).toBe(bytes("first_moment") + bytes("second_moment"));
  expect(memory.packedWeights).toBe(engine.memory.prepared);
  expect(memory.activations).toBe(engine.memory.arena);
  expect(flops.model).toBe(2 * engine.modelFlops);
  engine.dispose();
});

test("a job for other machines is planned on this one", async () => {
  const huge = {
    ...model,
    hidden_size: 8192,
    intermediate_size: 28672,
    num_hidden_layers: 80,
    num_attention_heads: 64,
    num_key_value_heads: 8,
    vocab_size: 32000,
    max_position_embeddings: 4096,
  };
  const data = { train: "text.txt", sequence_length: 4096 };
  const { parameters, memory } = await plan({ model: huge, data, bf16: { enabled: true } });
  // Llama 2 70B.
  expect(parameters.total).toBe(68_976_648_192);
  expect(memory.optimizer).toBe(8 * 68_976_648_192);
  expect(process.memoryUsage.rss()).toBeLessThan(2e9);
});

test("the vocabulary of a tokenizer that is still to be trained", async () => {
  const { vocab_size: _, ...open } = model;
  const parsed = config({ model: open, tokenizer: { train: { vocabulary_size: 300 } } });
  const { language } = await modelToPlan(parsed);
  expect(language.facts.vocabularySize).toBe(300);
});

test("as text", async () => {
  const text = formatPlan(await plan({}, { machine: { flops: 1e12, bandwidth: 2e10 } }));
  expect(text).toMatch(/^parameters: 34,016\n {2}model\.embed_tokens +3,072\n/);
  expect(text).toMatch(/model\.layers\.\*\.mlp \(3\) +18,432\n/);
  expect(text).toContain("a step: 128 tokens in f32, as 2 x 64");
  expect(text).toMatch(/parameters \(float32\) +132\.9 KiB +\d+\.\d%/);
  expect(text).toMatch(/time of a step: at least \d/);
  expect(text).toMatch(/products +1\.00 TFLOP\/s\n {2}memory +20\.0 GB\/s/);
});

test("a machine's pace is measured", async () => {
  const machine = await measureMachine(createNativeBackend({ threads: 1 }), "f32");
  expect(machine.flops).toBeGreaterThan(1e8);
  expect(machine.bandwidth).toBeGreaterThan(1e8);
});
