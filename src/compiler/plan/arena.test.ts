import fc from "fast-check";
import { expect, test } from "vitest";
import { type Lifetime, layOutArena } from "./arena.ts";

const lifetimes = fc.array(
  fc
    .record({ bytes: fc.nat({ max: 5000 }), first: fc.nat({ max: 30 }), length: fc.nat({ max: 12 }) })
    .map(({ bytes, first, length }): Lifetime => ({ bytes, first, last: first + length })),
  { maxLength: 60 },
);

test("blocks alive at the same time never overlap, and every one is aligned and inside", () => {
  fc.assert(
    fc.property(lifetimes, (blocks) => {
      const { offsets, bytes } = layOutArena(blocks);
      blocks.forEach((a, i) => {
        expect(offsets[i]! % 64).toBe(0);
        expect(offsets[i]! + a.bytes).toBeLessThanOrEqual(bytes);
        blocks.slice(0, i).forEach((b, j) => {
          if (a.last < b.first || b.last < a.first || a.bytes === 0 || b.bytes === 0) return;
          const apart = offsets[i]! + a.bytes <= offsets[j]! || offsets[j]! + b.bytes <= offsets[i]!;
          expect(apart, `block ${i} and block ${j}`).toBe(true);
        });
      });
    }),
    { numRuns: 300 },
  );
});

test("the arena is no larger than all blocks and no smaller than what is alive at once", () => {
  fc.assert(
    fc.property(lifetimes, (blocks) => {
      const padded = blocks.map(({ bytes }) => Math.ceil(bytes / 64) * 64);
      const { bytes } = layOutArena(blocks);
      expect(bytes).toBeLessThanOrEqual(padded.reduce((sum, size) => sum + size, 0));
      for (let step = 0; step <= 42; step++) {
        const alive = blocks.reduce((sum, { first, last }, i) => {
          return first <= step && step <= last ? sum + padded[i]! : sum;
        }, 0);
        expect(bytes).toBeGreaterThanOrEqual(alive);
      }
    }),
    { numRuns: 200 },
  );
});

test("a chain of values needs the memory of two of them", () => {
  const chain = Array.from(
    { length: 10 },
    (_, step): Lifetime => ({ bytes: 640, first: step, last: step + 1 }),
  );
  expect(layOutArena(chain).bytes).toBe(1280);
});
