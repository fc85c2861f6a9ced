import { expect, test } from "vitest";
import { createNullBackend } from "../../backends.ts";
import { meshAxes } from "../../parallel/mesh.ts";
import { type TrainConfig, trainConfigSchema } from "../config/schema/schema.ts";
import { buildModel } from "../setup.ts";
import { chooseLayout } from "./auto.ts";
import type { Cluster } from "./cluster.ts";
import { formatLayouts } from "./format.ts";
import { type LayoutSearch, meshesOf, searchLayouts } from "./search.ts";

/** 4 heads of queries, 2 of keys and values, 3 layers. */
function config(changes: object = {}): TrainConfig {
  return trainConfigSchema.parse({
    model: {
      type: "llama",
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 3,
      num_attention_heads: 4,
      num_key_value_heads: 2,
      vocab_size: 288,
      max_position_embeddings: 64,
    },
    tokenizer: { train: { vocabulary_size: 258 } },
    data: { train: "text.txt", sequence_length: 16 },
    output_dir: "out",
    train_batch_size: 16,
    train_micro_batch_size_per_gpu: 2,
    optimizer: { type: "AdamW", params: { lr: 1e-3 } },
    scheduler: { type: "WarmupLR", params: {} },
    ...changes,
  });
}

const cluster: Cluster = {
  ranks_per_node: 2,
  accelerator: { flops: 1e12, memory: 1e9, memory_bandwidth: 1e11, efficiency: 1, baseline: 0 },
  links: { node: { bandwidth: 1e11, latency: 1e-6 }, network: { bandwidth: 1e9, latency: 1e-5 } },
};

async function search(changes: object = {}, more: Partial<LayoutSearch> = {}) {
  const parsed = config(changes);
  const model = await buildModel(parsed, undefined);
  const backend = createNullBackend({ threads: 1 });
  return searchLayouts({ config: parsed, model, backend, ranks: 8, cluster, ...more });
}

test("meshes are the ways to write the ranks as a product", () => {
  // 2^3 over four axes: 3 factors among 4, with repetition: C(6, 3).
  expect(meshesOf(8)).toHaveLength(20);
  for (const mesh of meshesOf(12))
    expect(meshAxes.reduce((product, axis) => product * mesh[axis], 1)).toBe(12);
  expect(meshesOf(8, { tensor: 2, pipeline: 1 }).map(({ data, sequence }) => [data, sequence])).toEqual([
    [4, 1],
    [2, 2],
    [1, 4],
  ]);
});

test("only legal layouts are found, the fastest first", async () => {
  const layouts = await search();
  expect(layouts.length).toBeGreaterThan(4);
  for (const { mesh, stage } of layouts) {
    // Two heads of keys and values; three layers; four heads for tensor and sequence ranks together; stages 2 and 3
    // exclude a pipeline.
    expect(2 % mesh.tensor).toBe(0);
    expect(mesh.pipeline).toBeLessThanOrEqual(3);
    expect(4 % (mesh.tensor * mesh.sequence)).toBe(0);
    expect(mesh.pipeline > 1 && stage >= 2).toBe(false);
  }
  const speeds = layouts.map(({ plan }) => plan.time!.tokensPerSecond);
  expect(speeds).toEqual(speeds.toSorted((a, b) => b - a));
  const names = layouts.map(({ mesh, stage }) => JSON.stringify([mesh, stage]));
  expect(new Set(names).size).toBe(names.length);
});

test("a batch that cannot be shared among as many ranks leaves the narrower data axes", async () => {
  const layouts = await search({ train_batch_size: 4 });
  expect(layouts.every(({ mesh }) => mesh.data <= 2)).toBe(true);
});

test("where none fits the smallest that would is told", async () => {
  const fitting = await search();
  const smallest = Math.min(...fitting.map(({ plan }) => plan.memory.total));
  const small = { ...cluster, accelerator: { ...cluster.accelerator, memory: smallest - 1 } };
  await expect(search({}, { cluster: small })).rejects.toThrow(
    /no layout of 8 ranks fits in memory\n {2}expected: +[\d.]+ [KM]iB, by the smallest of them: .*ZeRO \d/,
  );
  const enough = { ...cluster, accelerator: { ...cluster.accelerator, memory: smallest } };
  expect((await search({}, { cluster: enough })).every(({ plan }) => plan.memory.total === smallest)).toBe(
    true,
  );
});

test("a layout that cannot be is told why", async () => {
  await expect(search({}, { fixed: { tensor: 8 } })).rejects.toThrow(/cannot be split over the tensor axis/);
  await expect(search({}, { fixed: { tensor: 3 } })).rejects.toThrow(/no mesh of so many ranks/);
});

test("layouts are plain data, and a table", async () => {
  const [best] = await search();
  expect(JSON.parse(JSON.stringify(best!.plan.ranks))).toEqual(best!.plan.ranks);
  const text = formatLayouts([best!], 7);
  expect(text).toMatch(/^layouts that fit: the best 1 of 7\n {2}layout +batch +tokens\/s +step/);
});

async function choose(changes: object, ranks = 4) {
  const backend = createNullBackend({ threads: 1 });
  const chosen = await chooseLayout({ config: config(changes), ranks, backend, ranksInProcess: ranks });
  return chosen;
}

test("parallel: auto fills the axes that are left out", async () => {
  const chosen = await choose({ parallel: { auto: true, tensor: 2 }, zero_optimization: { stage: 1 } });
  const { pipeline, data, sequence, tensor } = chosen!.config.parallel;
  expect(tensor).toBe(2);
  expect(pipeline! * data! * sequence! * tensor!).toBe(4);
  expect(chosen!.layouts.every(({ mesh, stage }) => mesh.tensor === 2 && stage === 1)).toBe(true);
  expect(chosen!.reason).toMatch(/^parallel: auto chose .*tensor 2.*, ZeRO 1, of \d layouts: planned /);
});

test("nothing is chosen without auto, or for one rank", async () => {
  expect(await choose({})).toBeUndefined();
  expect(await choose({ parallel: { auto: true } }, 1)).toBeUndefined();
});

test("a slow link of the data axis turns the choice to an axis that sends less", async () => {
  const links = { data: { bandwidth: 1e4, latency: 0 } };
  const fast = await choose({ parallel: { auto: true, pipeline: 1, sequence: 1 } }, 2);
  const slow = await choose({ parallel: { auto: true, pipeline: 1, sequence: 1 }, comm: { links } }, 2);
  expect(fast!.config.parallel).toMatchObject({ data: 2, tensor: 1 });
  expect(slow!.config.parallel).toMatchObject({ data: 1, tensor: 2 });
});
