import { describe, expect, test } from "vitest";
import { withNativeRanks } from "./native_world.ts";
import { type TinyOutcome, type TinyTraining, trainTiny } from "./tiny_training.ts";

/** ZeRO on native kernels: ranks of one process with overlapped collectives. */

async function train(world: number, options: TinyTraining): Promise<TinyOutcome> {
  return await withNativeRanks({ data: world }, async (ranks) => {
    const outcome = await trainTiny(ranks, options);
    for (const engine of outcome.engines) engine.dispose();
    return outcome;
  });
}

function worst(actual: readonly number[], expected: readonly number[]): number {
  return Math.max(
    ...actual.map((value, index) => Math.abs(value - expected[index]!) / Math.abs(expected[index]!)),
  );
}

/** Every bit that training leaves. */
function bitsOf({ losses, norms, parameters, evaluation }: TinyOutcome): unknown {
  return { losses, norms, evaluation, parameters };
}

describe.each([2, 4])("%i ranks", (world) => {
  test.each([
    ["f32", {}],
    ["f32, accumulating four", { accumulation: 8 / world }],
    ["f32, recomputing every block", { recompute: { mode: "every_k", every: 1 } }],
    ["bf16, tied", { dtype: "bf16", tied: true }],
    ["bf16, recomputing in runs", { dtype: "bf16", recompute: { mode: "sqrt" }, layers: 4 }],
  ] as [string, TinyTraining][])("all stages give the same bits: %s", async (_name, options) => {
    const first = await train(world, { steps: 6, ...options, zero: { stage: 0 } });
    for (const stage of [1, 2, 3] as const) {
      const outcome = await train(world, { steps: 6, ...options, zero: { stage } });
      expect(bitsOf(outcome)).toEqual(bitsOf(first));
    }
  });
});

test("stages 0 to 3 give the same losses, bit by bit, over 50 steps", async () => {
  const first = await train(2, { steps: 50, zero: { stage: 0 } });
  expect(first.losses[49]).toBeLessThan(first.losses[0]! * 0.7);
  for (const zero of [
    { stage: 1 },
    { stage: 2 },
    { stage: 3 },
    { stage: 3, overlap: false },
    { stage: 3, persistenceThreshold: 0, maximumReuseDistance: 0, reduceBucket: 1 },
    { stage: 3, persistenceThreshold: 0, maximumReuseDistance: 1e9, reduceBucket: 1e9, prefetchBucket: 1e9 },
  ] as const) {
    expect(bitsOf(await train(2, { steps: 50, zero }))).toEqual(bitsOf(first));
  }
});

test("the same global batch gives the same curve on 1, 2, 4 and 8 ranks", async () => {
  const alone = await train(1, { steps: 20 });
  for (const world of [2, 4, 8]) {
    const { losses, norms } = await train(world, { steps: 20, zero: { stage: 3 } });
    expect(worst(losses, alone.losses)).toBeLessThan(1e-5);
    expect(worst(norms, alone.norms)).toBeLessThan(1e-3);
  }
});

test("accumulating equals one batch", async () => {
  const whole = await train(2, { steps: 1 });
  for (const accumulation of [2, 4]) {
    const { losses, norms } = await train(2, { steps: 1, accumulation, zero: { stage: 3 } });
    expect(worst(losses, whole.losses)).toBeLessThan(1e-6);
    expect(worst(norms, whole.norms)).toBeLessThan(1e-6);
  }
});

test("fp16: ranks agree on the loss scale, and stages on every bit", async () => {
  const lossScale = {
    loss_scale: 0,
    initial_scale_power: 24,
    loss_scale_window: 3,
    hysteresis: 1,
    consecutive_hysteresis: false,
    min_loss_scale: 1,
  };
  const options: TinyTraining = { dtype: "f16", lossScale, steps: 14 };
  const first = await train(2, { ...options, zero: { stage: 0 } });
  expect(first.skipped[0]).toBe(true);
  expect(first.skipped.at(-1)).toBe(false);
  for (const stage of [1, 2, 3] as const) {
    const outcome = await train(2, { ...options, zero: { stage } });
    expect(bitsOf(outcome)).toEqual(bitsOf(first));
    expect(outcome.skipped).toEqual(first.skipped);
  }
});
