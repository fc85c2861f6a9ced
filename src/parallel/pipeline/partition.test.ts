import fc from "fast-check";
import { expect, test } from "vitest";
import { splitEvenly } from "./partition.ts";

/** The lightest heaviest part of all ways to cut, one by one. */
function lightest(weights: readonly number[], parts: number): number {
  if (parts === 1) return weights.reduce((sum, weight) => sum + weight, 0);
  let best = Number.POSITIVE_INFINITY;
  for (let size = 1; size <= weights.length - parts + 1; size++) {
    const first = weights.slice(0, size).reduce((sum, weight) => sum + weight, 0);
    best = Math.min(best, Math.max(first, lightest(weights.slice(size), parts - 1)));
  }
  return best;
}

test("weights are split so that the heaviest part is as light as any cut makes it", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 9 }),
      fc.integer({ min: 1, max: 5 }),
      (weights, wanted) => {
        const parts = Math.min(wanted, weights.length);
        const sizes = splitEvenly(weights, parts);
        expect(sizes).toHaveLength(parts);
        expect(Math.min(...sizes)).toBeGreaterThan(0);
        expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(weights.length);
        let start = 0;
        const heaviest = sizes.map((size) => {
          start += size;
          return weights.slice(start - size, start).reduce((sum, weight) => sum + weight, 0);
        });
        expect(Math.max(...heaviest)).toBe(lightest(weights, parts));
      },
    ),
  );
});

test("equal blocks are dealt out evenly", () => {
  expect(splitEvenly([1, 1, 1, 1, 1, 1, 1, 1], 4)).toEqual([2, 2, 2, 2]);
});
