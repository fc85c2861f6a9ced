import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { sgd } from "../../src/optim/optimizer.ts";
import { type OffloadSettings, offloadAll } from "../../src/train/offload/settings.ts";
import { withNativeRanks } from "./native_world.ts";
import { type TinyTraining, trainTiny } from "./tiny_training.ts";

/** Updates that are made during backward train bit for bit as those that are made after it. */

const folder = mkdtempSync(join(tmpdir(), "slipstream-interleave-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const everything = { ...offloadAll(folder), subGroup: 1024 };
const places: Record<string, OffloadSettings | undefined> = {
  "in memory": undefined,
  "with the optimizer on disk": { ...everything, parameters: false, gradients: false },
  "with everything on disk": everything,
};

async function train(ranks: number, training: TinyTraining) {
  const options = { clipping: 0, steps: 4, ...training };
  return await withNativeRanks({ data: ranks }, async (members) => {
    const { losses, norms, evaluation, parameters, engines } = await trainTiny(members, options);
    const interleaved = engines.map((engine) => engine.interleaved.size);
    for (const engine of engines) engine.dispose();
    return { outcome: { losses, norms, evaluation, parameters }, interleaved };
  });
}

async function expectSame(ranks: number, training: TinyTraining): Promise<void> {
  const always = await train(ranks, { ...training, interleave: "always" });
  const never = await train(ranks, { ...training, interleave: "never" });
  expect(always.outcome).toEqual(never.outcome);
  expect(new Set(never.interleaved)).toEqual(new Set([0]));
  const { parameters } = always.outcome;
  const trained = [...parameters.keys()].filter((name) => training.frozen?.(name) !== true).length;
  const { offload, zero } = training;
  // In memory all are updated during backward; parameters on disk that ranks keep whole, whose parts they update, are
  // not.
  const publishes = ranks > 1 && offload?.parameters === true && (zero?.stage === 1 || zero?.stage === 2);
  const [least, most] = offload === undefined ? [trained, trained] : publishes ? [0, 0] : [1, trained];
  expect(Math.min(...always.interleaved)).toBeGreaterThanOrEqual(least);
  expect(Math.max(...always.interleaved)).toBeLessThanOrEqual(most);
}

describe.each(Object.entries(places))("%s", (_, offload) => {
  const placed = offload === undefined ? {} : { offload };
  test.each([1, 4])("one rank, %i micro-batches", async (accumulation) => {
    await expectSame(1, { ...placed, accumulation });
  });
  test.each([0, 1, 2, 3] as const)("two ranks at stage %i", async (stage) => {
    for (const accumulation of [1, 4]) await expectSame(2, { ...placed, accumulation, zero: { stage } });
  });
});

const cases: Record<string, TinyTraining> = {
  sgd: { optimizer: sgd({ momentum: 0.9, nesterov: true, weight_decay: 0.01 }), accumulation: 4 },
  "tied embeddings": { tied: true, accumulation: 2 },
  "tied embeddings, one micro-batch": { tied: true },
  "recomputed blocks": { recompute: { mode: "every_k", every: 1 }, accumulation: 2, layers: 3 },
  "frozen parameters": { frozen: (name) => name.includes("layers.0"), accumulation: 2 },
  "bf16 activations": { dtype: "bf16", accumulation: 2 },
  "small buckets": { zero: { stage: 2, reduceBucket: 300, gatherBucket: 200 } },
  "no overlap": { zero: { stage: 1, overlap: false } },
};

describe.each(Object.entries(cases))("%s", (_, training) => {
  test.each(Object.entries(places))("%s", async (__, offload) => {
    const placed = offload === undefined ? {} : { offload };
    for (const ranks of [1, 2]) await expectSame(ranks, { ...training, ...placed });
  });
});

test("with a copy of the parameters in bf16", async () => {
  const offload = { ...everything, halfParameters: true };
  await expectSame(1, { dtype: "bf16", accumulation: 2, offload });
  await expectSame(2, { dtype: "bf16", zero: { stage: 3 }, offload });
});

test("what the cost model picks changes no bit", async () => {
  const training: TinyTraining = { accumulation: 2, steps: 6, offload: everything, zero: { stage: 3 } };
  const auto = await train(2, { ...training, interleave: "auto" });
  expect(auto.outcome).toEqual((await train(2, training)).outcome);
  // Ranks choose alike.
  expect(new Set(auto.interleaved).size).toBe(1);
});

test("clipping needs the whole gradient first: all is updated after backward", async () => {
  const clipped = await train(1, { clipping: 0.5, interleave: "always" });
  expect(clipped.interleaved).toEqual([0]);
});

test("a loss that is not finite ends the run, whatever was updated already", async () => {
  const diverging: TinyTraining = { learningRate: 1e30, steps: 8, interleave: "always" };
  await expect(train(1, diverging)).rejects.toThrow(/not finite.*made during backward.*last checkpoint/s);
});
