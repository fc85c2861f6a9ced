import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { pack, packBestFit, packRows } from "./packing.ts";
import type { TokenSpans } from "./split.ts";

/** Spans of the given lengths, with gaps of 3 tokens between them in the store. */
function spansOf(lengths: readonly number[]): TokenSpans {
  const starts: number[] = [];
  let at = 100;
  for (const length of lengths) {
    starts.push(at);
    at += length + 3;
  }
  const ends = starts.map((start, span) => start + lengths[span]!);
  return {
    starts: Float64Array.from(starts),
    ends: Float64Array.from(ends),
    promptEnds: Float64Array.from(starts),
  };
}

const lengthsArbitrary = fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 30 });
const sequenceArbitrary = fc.integer({ min: 2, max: 33 });

/** Every packed token as [span, index in the store], row by row. */
function packedTokens(mode: "rows" | "best_fit", spans: TokenSpans, sequenceLength: number): string[][] {
  const packing = pack(mode, spans, sequenceLength);
  return Array.from({ length: packing.rowCount }, (_, row) =>
    packing
      .pieces(row)
      .flatMap(({ span, start, length }) => Array.from({ length }, (_, index) => `${span}@${start + index}`)),
  );
}

function allTokens(spans: TokenSpans): string[] {
  return Array.from(spans.starts).flatMap((start, span) =>
    Array.from({ length: spans.ends[span]! - start }, (_, index) => `${span}@${start + index}`),
  );
}

describe("rows", () => {
  test("are cut end to end", () => {
    // Spans of 3, 0, 6 and 4 tokens start at 100, 106, 109 and 118; rows of 5.
    const packing = packRows(spansOf([3, 0, 6, 4]), 5);
    expect([packing.rowCount, packing.packedTokens]).toEqual([2, 10]);
    expect(packing.pieces(0)).toEqual([
      { span: 0, start: 100, length: 3 },
      { span: 2, start: 109, length: 2 },
    ]);
    expect(packing.pieces(1)).toEqual([
      { span: 2, start: 111, length: 4 },
      { span: 3, start: 118, length: 1 },
    ]);
  });

  test("hold all tokens in order but the last few", () => {
    fc.assert(
      fc.property(lengthsArbitrary, sequenceArbitrary, (lengths, sequenceLength) => {
        const spans = spansOf(lengths);
        const rows = packedTokens("rows", spans, sequenceLength);
        const all = allTokens(spans);
        expect(rows.every((row) => row.length === sequenceLength)).toBe(true);
        expect(rows.flat()).toEqual(all.slice(0, all.length - (all.length % sequenceLength)));
      }),
      { seed: 3 },
    );
  });
});

describe("best fit", () => {
  test("puts each document where it leaves the least room", () => {
    // Rows of 10, longest first: 12 is cut into 10 and 2; 8 opens row 1; 7 row 2; 3 fits row 2 exactly;
    // both 2s fit: the first into row 1 (room 2), the second opens row 3.
    const packing = packBestFit(spansOf([3, 12, 8, 2, 7]), 10);
    const rows = Array.from({ length: packing.rowCount }, (_, row) =>
      packing.pieces(row).map(({ span, length }) => [span, length]),
    );
    expect(rows).toEqual([
      [[1, 10]],
      [
        [2, 8],
        [1, 2],
      ],
      [
        [4, 7],
        [0, 3],
      ],
      [[3, 2]],
    ]);
    expect(packing.packedTokens).toBe(32);
  });

  test("keeps every token once, and every document whole that fits a row", () => {
    fc.assert(
      fc.property(lengthsArbitrary, sequenceArbitrary, (lengths, sequenceLength) => {
        const spans = spansOf(lengths);
        const rows = packedTokens("best_fit", spans, sequenceLength);
        expect(rows.every((row) => row.length > 0 && row.length <= sequenceLength)).toBe(true);
        expect(rows.flat().sort()).toEqual(allTokens(spans).sort());
        for (const [span, length] of lengths.entries()) {
          const holding = rows.filter((row) => row.some((token) => token.startsWith(`${span}@`)));
          expect(holding.length).toBe(
            length <= sequenceLength ? Math.min(1, length) : Math.ceil(length / sequenceLength),
          );
        }
        // Two rows that are at most half full would have been one.
        expect(rows.filter((row) => 2 * row.length <= sequenceLength).length).toBeLessThanOrEqual(1);
      }),
      { seed: 4, numRuns: 300 },
    );
  });
});
