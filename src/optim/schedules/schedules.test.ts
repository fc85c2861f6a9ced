import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createSchedule } from "./create_schedule.ts";
import type { ScheduleParameters, ScheduleType } from "./schedule.ts";

interface GoldenCase {
  readonly type: ScheduleType;
  readonly params: ScheduleParameters;
  readonly learningRates: readonly number[];
  readonly momenta?: readonly number[];
}

/** What DeepSpeed's own schedulers give (golden/make_golden.py). */
const golden = JSON.parse(readFileSync(new URL("golden/deepspeed.json", import.meta.url), "utf8")) as {
  baseLearningRate: number;
  cases: readonly GoldenCase[];
};

function expectClose(actual: number, expected: number, what: string): void {
  expect(Math.abs(actual - expected), `${what}: ${actual} against ${expected}`).toBeLessThanOrEqual(
    1e-12 * Math.abs(expected) + 1e-18,
  );
}

describe("against DeepSpeed, at every step", () => {
  golden.cases.forEach((each, index) => {
    it(`${each.type} (case ${index})`, () => {
      const schedule = createSchedule(each.type, each.params, golden.baseLearningRate);
      each.learningRates.forEach((rate, step) => {
        expectClose(schedule.learningRate(step), rate, `rate of step ${step}`);
      });
      each.momenta?.forEach((momentum, step) => {
        expectClose(schedule.momentum?.(step) ?? Number.NaN, momentum, `momentum of step ${step}`);
      });
    });
  });
});

// The values below are worked out by hand from the formulas, not by the code.
describe("by hand", () => {
  it("keeps the optimizer's rate without a schedule", () => {
    expect(createSchedule("Constant", {}, 3e-4).learningRate(12345)).toBe(3e-4);
  });

  it("reaches the top of a linear warmup one update after its steps, as the scheduler moves after the update", () => {
    const schedule = createSchedule(
      "WarmupLR",
      { warmup_max_lr: 0.4, warmup_num_steps: 4, warmup_type: "linear" },
      1,
    );
    expect([0, 1, 2, 3, 4, 5, 6].map((step) => schedule.learningRate(step))).toEqual([
      0, 0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.4,
    ]);
  });

  it("is halfway up a log warmup of 16 steps at update 4, since log 4 / log 16 = 1/2", () => {
    const schedule = createSchedule("WarmupLR", { warmup_max_lr: 2, warmup_num_steps: 16 }, 1);
    expect(schedule.learningRate(4)).toBeCloseTo(1, 12);
    expect(schedule.learningRate(16)).toBeCloseTo(2, 12);
  });

  it("is halfway down the cosine at a quarter turn", () => {
    // Warmup 2, total 12: iteration 6 is 5 of 10 cosine steps; cos(pi/2) = 0; (0.2 + 1) / 2 = 0.6.
    const schedule = createSchedule(
      "WarmupCosineLR",
      { total_num_steps: 12, warmup_num_steps: 2, cos_min_ratio: 0.2 },
      10,
    );
    expect(schedule.learningRate(7)).toBeCloseTo(6, 12);
    expect(schedule.learningRate(12)).toBeCloseTo(2, 12);
  });

  it("climbs in stairs where stairs are asked for", () => {
    const schedule = createSchedule(
      "OneCycle",
      {
        cycle_min_lr: 0,
        cycle_max_lr: 1,
        cycle_first_step_size: 8,
        cycle_first_stair_count: 2,
        cycle_second_step_size: 4,
        cycle_second_stair_count: 4,
        cycle_min_mom: 0,
        cycle_max_mom: 1,
      },
      1,
    );
    const steps = Array.from({ length: 13 }, (_, step) => step);
    const stairs = [0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5, 1, 0.75, 0.5, 0.25, 0];
    expect(steps.map((step) => schedule.learningRate(step))).toEqual(stairs);
    // The momentum mirrors the rate, except before the first update.
    expect(steps.slice(1).map((step) => schedule.momentum?.(step))).toEqual(
      stairs.slice(1).map((stair) => 1 - stair),
    );
  });

  it("leaves the momentum alone where it is not cycled", () => {
    const params = { cycle_min_lr: 0, cycle_max_lr: 1, cycle_momentum: false };
    expect(createSchedule("OneCycle", params, 1).momentum).toBeUndefined();
  });
});

describe("mistakes", () => {
  it("names the parameter that is missing", () => {
    expect(() => createSchedule("WarmupDecayLR", {}, 1)).toThrow(/WarmupDecayLR needs total_num_steps/);
    expect(() => createSchedule("OneCycle", { cycle_min_lr: 1 }, 1)).toThrow(
      /scheduler\.params\.cycle_max_lr/,
    );
  });

  it("suggests the schedule that was meant", () => {
    const misspelt = "WarmupCosinLR" as ScheduleType;
    expect(() => createSchedule(misspelt, {}, 1)).toThrow(
      /unknown schedule[\s\S]*did you mean WarmupCosineLR\?/,
    );
  });
});
