import { expect, test } from "vitest";
import { chooseSpans, liveAt } from "./live_spans.ts";

/** Three blocks of 10, 20 and 30 elements, read forward, then backward. */
const forms = [
  { elements: 10, reads: [0, 10, 11] },
  { elements: 20, reads: [1, 9] },
  { elements: 30, reads: [2, 8] },
];
const unbounded = 1e9;

function spansOf(maximumLive: number, maximumReuseDistance: number): [number, number, number][] {
  return chooseSpans(forms, { maximumLive, maximumReuseDistance }).map(({ form, first, last }) => [
    form.elements,
    first,
    last,
  ]);
}

test("a form stays where little else is read before it is read again", () => {
  // Between the reads of 30 nothing is read, of 20 the 30, of 10 the 20 and the 30.
  expect(spansOf(unbounded, 0)).toEqual([
    [10, 0, 0],
    [20, 1, 1],
    [30, 2, 8],
    [20, 9, 9],
    [10, 10, 11],
  ]);
  expect(spansOf(unbounded, 30)).toEqual([
    [10, 0, 0],
    [20, 1, 9],
    [30, 2, 8],
    [10, 10, 11],
  ]);
  expect(spansOf(unbounded, 50)).toEqual([
    [10, 0, 11],
    [20, 1, 9],
    [30, 2, 8],
  ]);
});

test("what waits longest goes where too much is there", () => {
  const limits = { maximumLive: 50, maximumReuseDistance: unbounded };
  const spans = chooseSpans(forms, limits);
  for (let position = 0; position <= 11; position++) expect(liveAt(spans, position)).toBeLessThanOrEqual(50);
  // The 10 waits from 0 to 10, longer than the others.
  expect(spansOf(50, unbounded)).toEqual([
    [10, 0, 0],
    [20, 1, 9],
    [30, 2, 8],
    [10, 10, 11],
  ]);
});

test("what is read must be there, however little may be", () => {
  expect(spansOf(1, unbounded)).toEqual(spansOf(unbounded, 0));
});
