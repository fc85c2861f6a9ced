import { expect, test } from "vitest";
import type { TensorData } from "../../src/base/dtype.ts";
import {
  gpipe,
  interleaved,
  oneForwardOneBackward,
  zeroBubble,
} from "../../src/parallel/pipeline/schedules.ts";
import { gradientName, type TrainedModel } from "../../src/train/programs.ts";
import {
  type PipelineSetting,
  type RankOutcome,
  randomBatches,
  runPipeline,
  runWhole,
  tinyLlama,
  wideReference,
} from "./pipeline_support.ts";

/** The largest difference of a tensor, relative to its largest value. */
function difference(actual: TensorData, expected: TensorData): number {
  let largest = 1e-30;
  let worst = 0;
  expected.forEach((value, index) => {
    largest = Math.max(largest, Math.abs(value));
    worst = Math.max(worst, Math.abs(value - actual[index]!));
  });
  return worst / largest;
}

/** Checks the gradients that any rank made against those of one process. */
function expectSameGradients(
  model: TrainedModel,
  outcomes: readonly RankOutcome[],
  expected: Record<string, TensorData>,
  bar: number,
): void {
  for (const name of model.parameters.keys()) {
    const leaf = gradientName(name);
    const holders = outcomes.filter(({ memory }) => memory[leaf]!.some((value: number) => value !== 0));
    expect(holders.length, name).toBeGreaterThan(0);
    for (const { memory } of holders)
      expect(difference(memory[leaf]!, expected[leaf]!), name).toBeLessThan(bar);
  }
}

const wide = { backend: wideReference, dtype: "f64" } as const;

async function expectExact(
  model: TrainedModel,
  microBatches: number,
  setting: Omit<PipelineSetting, "backend" | "dtype">,
): Promise<void> {
  const batches = randomBatches(model, microBatches);
  const expected = await runWhole(model, wideReference(), batches, 0.25, "f64");
  const outcomes = await runPipeline(model, batches, 0.25, { ...wide, ...setting });
  const loss = outcomes.reduce((sum, outcome) => sum + outcome.loss, 0);
  expect(Math.abs(loss / expected.loss - 1)).toBeLessThan(1e-12);
  expectSameGradients(model, outcomes, expected.memory, 1e-12);
  const alone = await runWhole(model, wideReference(), batches.slice(0, 1), 0.25, "f64");
  const evaluated = outcomes.reduce((sum, outcome) => sum + outcome.evaluated, 0);
  expect(Math.abs(evaluated / alone.loss - 1)).toBeLessThan(1e-12);
}

test("two stages under 1F1B compute what one process does", async () => {
  await expectExact(tinyLlama(2), 3, { ranks: 2, schedule: oneForwardOneBackward });
});

test.each([
  ["gpipe", gpipe, false],
  ["1f1b", oneForwardOneBackward, false],
  ["zero_bubble", zeroBubble, true],
] as const)(
  "%s over four stages computes what one process does",
  async (_name, schedule, twoStageBackward) => {
    await expectExact(tinyLlama(5), 6, { ranks: 4, schedule, twoStageBackward });
  },
);

test("interleaved stages compute what one process does", async () => {
  const schedule = (ranks: number, microBatches: number) => interleaved(ranks, microBatches, 2);
  await expectExact(tinyLlama(4), 4, { ranks: 2, chunks: 2, schedule });
});

test.each([1, 2, 3])(
  "a tied embedding gets both of its gradients, %i micro-batches",
  async (microBatches) => {
    const model = tinyLlama(3, { tied: true });
    await expectExact(model, microBatches, { ranks: 3, schedule: oneForwardOneBackward });
    await expectExact(model, microBatches, { ranks: 3, schedule: zeroBubble, twoStageBackward: true });
  },
);
