import { describe, expect, test } from "vitest";
import { PhiloxStream } from "../../../base/random.ts";
import { adjustLogits, distributionOf, drawFrom, type SamplingSettings, uniformOf } from "./sampling.ts";

/** Expectations are calculated by hand. Logits are logarithms of weights: [8, 4, 2, 1, 1] of 16. */
const logits = Float64Array.from([2, 8, 1, 4, 1], Math.log);
const neutral: SamplingSettings = {
  temperature: 1,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  logprobs: -1,
};
const tokensOf = (settings: Partial<SamplingSettings>): readonly number[] =>
  distributionOf(logits, { ...neutral, ...settings }).tokens;

describe("the distribution", () => {
  test("has every token that is allowed, by rising id", () => {
    const { tokens, weights } = distributionOf(logits.with(3, -Infinity), neutral);
    expect(tokens).toEqual([0, 1, 2, 4]);
    weights.forEach((weight, index) => {
      expect(weight).toBeCloseTo([1 / 4, 1, 1 / 8, 1 / 8][index]!, 12);
    });
    const { weights: flat } = distributionOf(logits, { ...neutral, temperature: 2 });
    expect(flat[3]).toBeCloseTo(Math.sqrt(4 / 8), 12);
  });

  test("each limit keeps the likeliest, the first of equal ones", () => {
    expect(tokensOf({ top_k: 2 })).toEqual([1, 3]);
    expect(tokensOf({ top_k: 4 })).toEqual([0, 1, 2, 3]);
    expect(tokensOf({ top_p: 0.49 })).toEqual([1]);
    expect(tokensOf({ top_p: 0.51 })).toEqual([1, 3]);
    expect(tokensOf({ top_p: 0.9 })).toEqual([0, 1, 2, 3]);
    expect(tokensOf({ min_p: 0.2 })).toEqual([0, 1, 3]);
    expect(tokensOf({ min_p: 1 })).toEqual([1]);
    expect(tokensOf({ min_p: 7 })).toEqual([1]);
  });

  test("min_p and top_k come before top_p: 12 of 14 is less than 0.9, 12 of 12 is not", () => {
    expect(tokensOf({ top_p: 0.8 })).toEqual([0, 1, 3]);
    expect(tokensOf({ top_p: 0.8, top_k: 3 })).toEqual([1, 3]);
    expect(tokensOf({ top_p: 0.8, min_p: 0.2 })).toEqual([1, 3]);
    expect(tokensOf({ top_p: 0.9, top_k: 3 })).toEqual([0, 1, 3]);
  });

  test("greedy looks at no limit", () => {
    expect(tokensOf({ temperature: 0, top_k: 3, min_p: 0 })).toEqual([1]);
    expect(tokensOf({ temperature: 9e-6 })).toEqual([1]);
  });
});

test("logits: mask, then biases, then penalties", () => {
  const settings = {
    ...neutral,
    repetition_penalty: 2,
    frequency_penalty: 0.25,
    presence_penalty: 0.5,
  };
  const adjusted = adjustLogits(
    Float64Array.of(4, -4, 1, 1, 1),
    settings,
    Float64Array.of(0b10111),
    [
      [2, 3],
      [3, 100],
    ],
    [
      [0, 0],
      [1, 3],
      [2, 1],
    ],
  );
  // 4 / 2; -4 * 2 - 3 * 0.25 - 0.5; (1 + 3) / 2 - 0.25 - 0.5.
  expect([...adjusted]).toEqual([2, -9.25, 1.25, Number.NEGATIVE_INFINITY, 1]);
});

test("the draw is the first token whose cumulative share exceeds the number", () => {
  const distribution = { tokens: [2, 5, 9], weights: [1, 2, 1] };
  expect([0, 0.2499, 0.25, 0.7499, 0.75, 0.9999].map((uniform) => drawFrom(distribution, uniform))).toEqual([
    2, 2, 5, 5, 9, 9,
  ]);
});

test("the number is made of the first two words of the block that the seeds name", () => {
  const stream = new PhiloxStream(3 + 5 * 2 ** 32);
  stream.position = 4 * 7;
  const high = stream.nextUint32() >>> 5;
  const low = stream.nextUint32() >>> 6;
  expect(uniformOf([3, 5, 7, 0])).toBe((high * 2 ** 26 + low) / 2 ** 53);
  expect(uniformOf([3, 5, 7, 1])).not.toBe(uniformOf([3, 5, 7, 0]));
  expect(uniformOf([-1, -1, -1, -1])).toBeGreaterThanOrEqual(0);
});
