import fc from "fast-check";
import { expect, test } from "vitest";
import { chooseInterleaving, type SubGroupCost } from "./interleaving.ts";

const lane = (bandwidth: number, busy = 0) => ({ bandwidth, busy });
const subGroup = (name: string, remaining: number, bytes: number): SubGroupCost => ({
  ...{ name, remaining, readBytes: bytes, writeBytes: bytes },
});

test("interleaves what can be read and written before backward ends", () => {
  // Ready after 5 of 10 seconds: 200 bytes take 2 seconds to read and 2 to write, 300 bytes 3 and 3.
  const costs = { microBatchSeconds: 10, reading: lane(100), writing: lane(100) };
  expect(chooseInterleaving({ ...costs, subGroups: [subGroup("fits", 0.5, 200)] })).toEqual(
    new Set(["fits"]),
  );
  expect(chooseInterleaving({ ...costs, subGroups: [subGroup("late", 0.5, 300)] })).toEqual(new Set());
});

test("what was chosen first takes the lanes' time", () => {
  // "first" is read until second 6 and written until 8; "second" is read until 8, and written until 10.
  const subGroups = [subGroup("third", 0.3, 200), subGroup("second", 0.4, 200), subGroup("first", 0.6, 200)];
  expect(
    chooseInterleaving({ microBatchSeconds: 10, reading: lane(100), writing: lane(100), subGroups }),
  ).toEqual(new Set(["first", "second"]));
});

test("what did not fit leaves its time to others", () => {
  const subGroups = [subGroup("large", 0.6, 1000), subGroup("small", 0.5, 100)];
  expect(
    chooseInterleaving({ microBatchSeconds: 10, reading: lane(100), writing: lane(100), subGroups }),
  ).toEqual(new Set(["small"]));
});

test("a lane that is busy has less to give", () => {
  const costs = { microBatchSeconds: 10, subGroups: [subGroup("a", 0.5, 200)] };
  expect(chooseInterleaving({ ...costs, reading: lane(100, 0.3), writing: lane(100) })).toEqual(
    new Set(["a"]),
  );
  expect(chooseInterleaving({ ...costs, reading: lane(100, 0.5), writing: lane(100) })).toEqual(new Set());
  expect(chooseInterleaving({ ...costs, reading: lane(100), writing: lane(100, 1) })).toEqual(new Set());
  expect(chooseInterleaving({ ...costs, reading: lane(0), writing: lane(100) })).toEqual(new Set());
});

test("what moves nothing is updated afterwards", () => {
  const subGroups = [subGroup("in memory", 0.9, 0)];
  expect(
    chooseInterleaving({ microBatchSeconds: 10, reading: lane(100), writing: lane(100), subGroups }),
  ).toEqual(new Set());
});

test("no more is moved than the disk has time for", () => {
  const bytes = fc.integer({ min: 1, max: 1000 });
  const groups = fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), bytes), { maxLength: 12 });
  fc.assert(
    fc.property(groups, fc.integer({ min: 1, max: 500 }), (list, bandwidth) => {
      const subGroups = list.map(([remaining, size], index) => subGroup(String(index), remaining, size));
      const costs = { microBatchSeconds: 10, writing: lane(bandwidth), reading: lane(bandwidth), subGroups };
      const chosen = chooseInterleaving(costs);
      // Each lane alone must have had the time for all that it was given since the first of them was ready.
      const taken = subGroups.filter(({ name }) => chosen.has(name));
      const total = taken.reduce((sum, { readBytes }) => sum + readBytes, 0);
      const longest = Math.max(0, ...taken.map(({ remaining }) => remaining));
      expect(total / bandwidth).toBeLessThanOrEqual(longest * 10 + 1e-9);
    }),
  );
});
