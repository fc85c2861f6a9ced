import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkSchedule } from "./check.ts";
import { scheduleTable } from "./choose.ts";
import { bubbleByFormula } from "./formulas.ts";
import {
  type Action,
  gpipe,
  interleaved,
  oneForwardOneBackward,
  type ScheduleTable,
  zeroBubble,
} from "./schedules.ts";
import { type ScheduleCosts, simulateSchedule } from "./simulate.ts";

const sizes = { ranks: fc.integer({ min: 1, max: 9 }), microBatches: fc.integer({ min: 1, max: 24 }) };

/** Stages alike, forward and both halves of backward of these lengths. */
function costs(forward: number, input: number, weight: number, stages = 1): ScheduleCosts {
  const seconds = { forward, backward: input + weight, input_gradient: input, weight_gradient: weight };
  return { seconds: (kind) => seconds[kind] / stages };
}

const even = costs(1, 1, 1);

describe("every schedule", () => {
  test("runs everything once, in an order in which nobody waits for ever", () => {
    fc.assert(
      fc.property(sizes.ranks, sizes.microBatches, fc.boolean(), (ranks, microBatches, twoStage) => {
        for (const name of ["gpipe", "1f1b", "zero_bubble"] as const) {
          checkSchedule(scheduleTable(name, { ranks, microBatches, chunks: 1, twoStageBackward: twoStage }));
        }
      }),
    );
    fc.assert(
      fc.property(
        sizes.ranks,
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        (ranks, rounds, chunks, twoStage) => {
          const shape = { ranks, microBatches: rounds * ranks, chunks, twoStageBackward: twoStage };
          checkSchedule(scheduleTable("interleaved", shape));
        },
      ),
    );
  });

  test("is at least as long as its slowest rank computes, and waits for less with a faster link", () => {
    fc.assert(
      fc.property(
        sizes.ranks,
        sizes.microBatches,
        fc.double({ min: 0, max: 5, noNaN: true }),
        (ranks, microBatches, transfer) => {
          const table = oneForwardOneBackward(ranks, microBatches);
          const near = simulateSchedule(table, even);
          const far = simulateSchedule(table, { ...even, transfer: () => transfer });
          expect(near.seconds).toBeGreaterThanOrEqual(3 * microBatches);
          expect(far.seconds).toBeGreaterThanOrEqual(near.seconds);
        },
      ),
    );
  });
});

describe("the idle time is that of the papers", () => {
  const shapes = [
    [2, 2],
    [4, 4],
    [4, 8],
    [8, 32],
  ] as const;

  test.each(shapes)("GPipe and 1F1B, %i ranks, %i micro-batches: (p-1)/(m+p-1)", (p, m) => {
    const expected = (p - 1) / (m + p - 1);
    expect(simulateSchedule(gpipe(p, m), costs(1, 1.2, 0.7)).bubble).toBeCloseTo(expected, 12);
    expect(simulateSchedule(oneForwardOneBackward(p, m), costs(1, 1.2, 0.7)).bubble).toBeCloseTo(
      expected,
      12,
    );
  });

  test.each(shapes)("interleaved, %i ranks, %i micro-batches: idle time through the chunks", (p, m) => {
    for (const chunks of [1, 2, 3]) {
      const { seconds } = simulateSchedule(interleaved(p, m, chunks), costs(1, 1.5, 0.5, chunks));
      expect(seconds - 3 * m).toBeCloseTo((3 * (p - 1)) / chunks, 9);
    }
  });

  test.each(shapes)("zero bubble (ZB-H1), %i ranks, %i micro-batches: (p-1)(F + B - W)", (p, m) => {
    expect(simulateSchedule(zeroBubble(p, m), even).seconds).toBeCloseTo(3 * m + p - 1, 12);
    const { seconds } = simulateSchedule(zeroBubble(p, m), costs(1, 1, 0.75));
    expect(seconds).toBeCloseTo(2.75 * m + (p - 1) * 1.25, 12);
  });

  test.each(shapes)("2BP, %i ranks, %i micro-batches", (p, m) => {
    const twoStage = { ranks: p, microBatches: m, chunks: 1, twoStageBackward: true };
    const ofGpipe = simulateSchedule(scheduleTable("gpipe", twoStage), even);
    expect(ofGpipe.bubble).toBeCloseTo((2 * (p - 1)) / (2 * (p - 1) + 3 * m), 12);
    for (const chunks of [2, 3]) {
      const table = scheduleTable("interleaved", { ...twoStage, chunks });
      const formula = (p - 1) / chunks / ((p - 1) / chunks + 3 * m);
      expect(simulateSchedule(table, costs(1, 1, 1, chunks)).bubble).toBeCloseTo(formula, 12);
    }
    const of1f1b = simulateSchedule(scheduleTable("1f1b", twoStage), even);
    expect(of1f1b.bubble).toBeCloseTo((p - 1) / (p - 1 + 3 * m), 12);
  });
});

describe("the formulas are what a schedule's play comes to", () => {
  test.each([
    ["gpipe", false],
    ["gpipe", true],
    ["1f1b", false],
    ["1f1b", true],
    ["zero_bubble", true],
  ] as const)("%s, backward in two stages %s", (name, twoStageBackward) => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 8 }),
        fc.integer({ min: 0, max: 16 }),
        fc.double({ min: 1, max: 1.4, noNaN: true }),
        fc.double({ min: 0.7, max: 1, noNaN: true }),
        (ranks, more, inputGradient, weightGradient) => {
          // W may lie as far below F as B does above it and still leave gaps of one W each.
          const microBatches = ranks + more;
          const table = scheduleTable(name, { ranks, microBatches, chunks: 1, twoStageBackward });
          const played = simulateSchedule(table, costs(1, inputGradient, weightGradient));
          const seconds = { forward: 1, inputGradient, weightGradient };
          const formula = bubbleByFormula(name, ranks, microBatches, seconds, { twoStageBackward });
          expect(played.bubble).toBeCloseTo(formula, 9);
        },
      ),
    );
  });
});

describe("what is held", () => {
  test("1F1B holds at most as many micro-batches as ranks follow, GPipe all, and ZB-H1 no more than 1F1B's first", () => {
    fc.assert(
      fc.property(sizes.ranks, sizes.microBatches, (p, m) => {
        const held = (table: ScheduleTable) => checkSchedule(table).map(({ activations }) => activations);
        expect(held(gpipe(p, m))).toEqual(new Array(p).fill(m));
        expect(held(oneForwardOneBackward(p, m))).toEqual(
          Array.from({ length: p }, (_, rank) => Math.min(m, p - rank)),
        );
        for (const activations of held(zeroBubble(p, m))) expect(activations).toBeLessThanOrEqual(p);
      }),
    );
  });
});

describe("a wrong schedule is refused", () => {
  const change = (rank: number, edit: (list: Action[]) => Action[]): ScheduleTable => {
    const table = oneForwardOneBackward(2, 3);
    return { ...table, actions: table.actions.map((list, at) => (at === rank ? edit([...list]) : list)) };
  };

  test("that leaves something out, or runs it twice", () => {
    expect(() => checkSchedule(change(1, (list) => list.slice(1)))).toThrow(
      /rank 1: micro-batch 0 of chunk 0/,
    );
    expect(() => checkSchedule(change(0, (list) => [...list, list[0]!]))).toThrow(
      /rank 0: it runs forward .* twice/,
    );
  });

  test("in which ranks wait for each other", () => {
    const backwardFirst = change(0, ([a, b, first, ...rest]) => [first!, a!, b!, ...rest]);
    expect(() => checkSchedule(backwardFirst)).toThrow(/wait for each other/);
  });

  test("in which messages cross", () => {
    const swapped = change(0, ([a, b, ...rest]) => [b!, a!, ...rest]);
    expect(() => checkSchedule(swapped)).toThrow(/another order|wait for each other/);
  });

  test("whose gradients are not added in order", () => {
    const swap = (list: Action[]): Action[] => {
      const places = list.flatMap(({ kind }, index) => (kind === "backward" ? [index] : []));
      const [first, second] = places as [number, number];
      return list.map((action, index) =>
        index === first ? list[second]! : index === second ? list[first]! : action,
      );
    };
    expect(() => checkSchedule(change(1, swap))).toThrow(/not added in order/);
  });
});

test("micro-batches that cannot be dealt out to interleaved stages are refused with what can", () => {
  expect(() => interleaved(4, 6, 2)).toThrow(
    /multiple of the 4 pipeline ranks[\s\S]*received: 6[\s\S]*to 4 or 8, or the schedule to 1f1b/,
  );
});
