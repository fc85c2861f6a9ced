import { describe, expect, test } from "vitest";
import { createNullBackend } from "../../backends.ts";
import { Mesh, type MeshSizes } from "../../parallel/mesh.ts";
import { trainConfigSchema } from "../config/schema/schema.ts";
import { buildModel } from "../setup.ts";
import { type PlanParts, planTraining } from "./plan.ts";

/** A Llama whose parameters are all multiples of 16 x 8 elements, so that no part is padded, and below 2^16 x 4. */
const model = {
  type: "llama",
  hidden_size: 128,
  intermediate_size: 256,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 8,
  vocab_size: 256,
  max_position_embeddings: 4096,
};
const layer = 4 * 128 * 128 + 3 * 128 * 256 + 2 * 128;
const count = 4 * layer + 2 * 256 * 128 + 128;

async function plan(changes: object, mesh: Partial<MeshSizes>, more: Partial<PlanParts> = {}) {
  const parsed = trainConfigSchema.parse({
    model,
    data: { train: "text.txt", sequence_length: 64 },
    output_dir: "out",
    train_micro_batch_size_per_gpu: 1,
    optimizer: { type: "AdamW", params: { lr: 1e-3 } },
    scheduler: { type: "WarmupLR", params: {} },
    ...changes,
  });
  return planTraining({
    config: parsed,
    model: await buildModel(parsed, undefined),
    backend: createNullBackend({ threads: 1 }),
    mesh: new Mesh(mesh, 0).sizes,
    baselineBytes: 0,
    ...more,
  });
}

const zero = (stage: number) => ({ zero_optimization: { stage, stage3_param_persistence_threshold: 0 } });

describe.each([4, 8])("states on %i ranks", (ranks) => {
  test.each([0, 1, 2, 3])("at stage %i", async (stage) => {
    const { memory } = await plan(zero(stage), { data: ranks });
    const share = (from: number): number => (stage >= from ? 1 / ranks : 1);
    expect(memory.parameters).toBe(4 * count * share(3));
    expect(memory.gradients).toBe(4 * count * share(2));
    expect(memory.optimizer).toBe(8 * count * share(1));
  });
});

test("parts are padded to whole cache lines", async () => {
  // Norms of 40 elements make parts of 16 on 4 ranks; all other parameters divide by 64.
  const sizes = { hidden_size: 40, intermediate_size: 64, vocab_size: 64 };
  const { memory } = await plan(
    { model: { ...model, ...sizes, num_attention_heads: 4, num_key_value_heads: 4 }, ...zero(3) },
    { data: 4 },
  );
  const matrices = 4 * (4 * 40 * 40 + 3 * 40 * 64) + 2 * 64 * 40;
  const norms = 9;
  expect(memory.parameters).toBe(4 * (matrices / 4 + norms * 16));
});

/**
 * 16 bytes a parameter, as in the paper on ZeRO (arXiv 1910.02054, section 3.1), which counts 2 + 2 for parameters and
 * gradients in half precision and 12 for the optimizer; ours are float32: 4 + 4, and 8 for two moments.
 */
test("1.5 billion parameters on 8 ranks: 16, 9, 5.5 and 2 bytes a parameter", async () => {
  const sizes = { type: "gpt2", n_embd: 1600, n_layer: 48, n_head: 25, n_positions: 1024, vocab_size: 50257 };
  for (const [stage, bytes] of [
    [0, 16],
    [1, 8 + 8 / 8],
    [2, 4 + 12 / 8],
    [3, 16 / 8],
  ] as const) {
    const { memory, parameters } = await plan({ model: sizes, ...zero(stage) }, { data: 8 });
    expect(parameters.total).toBe(1_557_611_200);
    const states = memory.parameters + memory.gradients + memory.optimizer;
    // Large parameters are padded to blocks of a disk: of the vocabulary 50,257 x 1,600 elements to 8 x 2,048.
    expect(Math.abs(states / parameters.total / bytes - 1)).toBeLessThan(1e-3);
  }
});

test("a trillion parameters on 512 ranks: 31.25 GB of states a rank at stage 3", async () => {
  const sizes = {
    type: "gpt2",
    n_embd: 25600,
    n_layer: 128,
    n_head: 200,
    n_positions: 1024,
    vocab_size: 50257,
  };
  const { memory, parameters } = await plan(
    { model: sizes, bf16: { enabled: true }, activation_checkpointing: { mode: "every_block" }, ...zero(3) },
    { data: 512 },
  );
  // 12 x layers x width^2, and some for embeddings and biases.
  expect(parameters.total / (12 * 128 * 25600 ** 2)).toBeCloseTo(1, 2);
  const states = memory.parameters + memory.gradients + memory.optimizer;
  expect(states / parameters.total / (31.25e9 / 1e12)).toBeCloseTo(1, 4);
});

describe("the bubble of a pipeline", () => {
  /** Blocks alone count: the vocabulary is small. Products take all the time, so that forward, B and W take alike. */
  const blocks = {
    ...model,
    hidden_size: 512,
    intermediate_size: 2048,
    num_hidden_layers: 8,
    vocab_size: 32,
  };
  const bubble = async (pipeline: object): Promise<number> => {
    const { time } = await plan(
      {
        model: blocks,
        gradient_accumulation_steps: 8,
        data: { train: "text.txt", sequence_length: 64 },
        pipeline,
        parallel: { pipeline: 4 },
      },
      { pipeline: 4 },
      { machine: { flops: 1e12, bandwidth: 1e30 } },
    );
    return time!.bubble;
  };

  test.each([
    // 3 (F + B + W) of waiting beside 8 of them.
    [{ schedule: "1f1b" }, 3 / 11],
    [{ schedule: "gpipe" }, 3 / 11],
    // Forward, B and W alike: 3 (F + B - W) = F + B + W.
    [{ schedule: "1f1b", two_stage_backward: true }, 1 / 9],
    [{ schedule: "zero_bubble" }, 1 / 9],
    // 3 (F + B) = 2 (F + B + W).
    [{ schedule: "gpipe", two_stage_backward: true }, 2 / 10],
  ])("of %o", async (pipeline, expected) => {
    expect(Math.abs((await bubble(pipeline)) / expected - 1)).toBeLessThan(0.05);
  });
});

test("states on disk are no memory", async () => {
  const offload = { device: "nvme", nvme_path: "/tmp" };
  const whole = await plan(zero(3), { data: 2 });
  const zeroOnDisk = { ...zero(3).zero_optimization, offload_optimizer: offload, offload_param: offload };
  const { memory, ranks } = await plan({ zero_optimization: zeroOnDisk }, { data: 2 });
  expect([memory.parameters, memory.gradients, memory.optimizer]).toEqual([0, 0, 0]);
  const states = (16 * count) / 2;
  expect(ranks[0]!.disk!.bytes).toBeGreaterThanOrEqual(states);
  expect(ranks[0]!.disk!.readBytes).toBeGreaterThanOrEqual(states);
  expect(whole.ranks[0]!.disk).toBeUndefined();
});

test("a process of local ranks holds all of theirs, and itself once", async () => {
  const { memory, process } = await plan({}, { data: 4 }, { ranksInProcess: 4, baselineBytes: 1000 });
  expect(process!.memory.total).toBe(4 * (memory.total - 1000) + 1000);
});
