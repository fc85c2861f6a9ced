import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { elementCount, stridesOf } from "../base/shape.ts";
import { runsOf, sharedRuns, wholeBox } from "./runs.ts";

type Piece = Parameters<typeof sharedRuns>[0];

/** The elements of a piece by their place in the whole tensor, one by one. */
function elementsOf({ shape, box, start, end }: Piece): number[] {
  const strides = stridesOf(shape);
  const inBox = stridesOf(box.sizes);
  return Array.from({ length: end - start }, (_, index) => {
    let rest = start + index;
    let whole = 0;
    for (const [axis, stride] of inBox.entries()) {
      whole += (box.starts[axis]! + Math.floor(rest / stride)) * strides[axis]!;
      rest %= stride;
    }
    return whole;
  });
}

const shapes = fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 });
const pieces = (shape: readonly number[]): fc.Arbitrary<Piece> =>
  fc.tuple(...shape.map((size) => fc.tuple(fc.nat(size - 1), fc.nat(size - 1)))).chain((ends) => {
    const starts = ends.map(([a, b]) => Math.min(a, b));
    const sizes = ends.map(([a, b]) => Math.abs(a - b) + 1);
    const count = elementCount(sizes);
    return fc.tuple(fc.nat(count), fc.nat(count)).map(([a, b]) => ({
      shape,
      box: { starts, sizes },
      start: Math.min(a, b),
      end: Math.max(a, b),
    }));
  });

describe("runs of pieces, against their elements one by one", () => {
  test("of one piece", () => {
    fc.assert(
      fc.property(shapes.chain(pieces), (piece) => {
        const expected = elementsOf(piece);
        const found: number[] = [];
        for (const { whole, piece: first, length } of runsOf(piece)) {
          expect(first).toBe(found.length);
          for (let index = 0; index < length; index++) found.push(whole + index);
        }
        expect(found).toEqual(expected);
      }),
    );
  });

  test("of two", () => {
    const pairs = shapes.chain((shape) => fc.tuple(pieces(shape), pieces(shape)));
    fc.assert(
      fc.property(pairs, ([from, to]) => {
        const sources = elementsOf(from);
        const targets = elementsOf(to);
        const found = sharedRuns(from, to).flatMap((run) =>
          Array.from({ length: run.length }, (_, index) => [run.from + index, run.to + index]),
        );
        const expected = targets.flatMap((whole, place) => {
          const source = sources.indexOf(whole);
          return source < 0 ? [] : [[source, place]];
        });
        expect(found).toEqual(expected);
      }),
    );
  });

  test("a whole tensor is one run, a box of columns one a row", () => {
    const whole = { shape: [6, 8], box: wholeBox([6, 8]), start: 0, end: 48 };
    expect([...runsOf(whole)]).toEqual([{ whole: 0, piece: 0, length: 48 }]);
    const columns = { shape: [6, 8], box: { starts: [0, 4], sizes: [6, 4] }, start: 0, end: 24 };
    expect([...runsOf(columns)].map(({ whole: first }) => first)).toEqual([4, 12, 20, 28, 36, 44]);
  });
});
