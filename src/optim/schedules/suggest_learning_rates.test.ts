import { describe, expect, it } from "vitest";
import { suggestLearningRates } from "./suggest_learning_rates.ts";

/** Rates that grow by a tenth each, from 1e-5. */
const rates = Array.from({ length: 120 }, (_, i) => 1e-5 * 1.1 ** i);

/** A loss that falls along a logistic curve around step 40 and climbs as a parabola after step 80. */
function loss(i: number): number {
  return 5 - 3 / (1 + Math.exp(-(i - 40) / 6)) + (i > 80 ? ((i - 80) / 10) ** 2 : 0);
}

describe("suggestLearningRates", () => {
  it("finds where a clean curve falls fastest and where it turns", () => {
    const suggestion = suggestLearningRates(
      rates.map((_, i) => loss(i)),
      rates,
    );
    // The logistic's slope is steepest at 40; the sum turns where 3/6 e^-x/(1+e^-x)^2 = (i-80)/50, near 80.
    expect(Math.abs(Math.log(suggestion.steepest / rates[40]!))).toBeLessThan(2 * Math.log(1.1));
    expect(Math.abs(Math.log(suggestion.maximum / rates[80]!))).toBeLessThan(2.5 * Math.log(1.1));
    expect(suggestion.minimum).toBeCloseTo(suggestion.maximum / 10, 12);
    expect(suggestion.diverged).toBe(true);
  });

  it("is not misled by noise", () => {
    const noisy = rates.map((_, i) => loss(i) + 0.05 * Math.sin(i * 12.9898) * Math.cos(i * 78.233));
    const { maximum, steepest } = suggestLearningRates(noisy, rates);
    expect(Math.abs(Math.log(maximum / rates[80]!))).toBeLessThan(12 * Math.log(1.1));
    expect(Math.abs(Math.log(steepest / rates[40]!))).toBeLessThan(8 * Math.log(1.1));
  });

  it("takes a loss that is not finite for divergence", () => {
    const losses = rates.map((_, i) => (i < 70 ? loss(i) : Number.NaN));
    const suggestion = suggestLearningRates(losses, rates);
    expect(suggestion.diverged).toBe(true);
    expect(suggestion.maximum).toBe(rates[69]);
  });

  it("says that a run which never turned was too short", () => {
    const { diverged, maximum } = suggestLearningRates(
      rates.slice(0, 75).map((_, i) => loss(i)),
      rates.slice(0, 75),
    );
    expect(diverged).toBe(false);
    expect(maximum).toBe(rates[74]);
  });

  it("refuses what cannot be read", () => {
    expect(() => suggestLearningRates([1, 2], [1, 2])).toThrow(/at least 10/);
    const falling = [...rates].reverse();
    expect(() => suggestLearningRates(rates.map(loss), falling)).toThrow(
      /positive and rise[\s\S]*rates\[1\]/,
    );
    expect(() =>
      suggestLearningRates(
        rates.map((_, i) => i),
        rates,
      ),
    ).toThrow(/never fell/);
  });
});
