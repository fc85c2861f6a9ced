import { expect, test } from "vitest";
import {
  blockBytes,
  blockTypes,
  formatName,
  formatOfBlocks,
  formatProblem,
  groupsOf,
  packedBytes,
  paddedColumns,
} from "./quantized_format.ts";

test("bytes of packed matrices, by hand", () => {
  // Two panels of 32 columns, three groups of 32 (the last one short): 1024 bytes of weights and 64 of scales each.
  expect(packedBytes({ bits: 8, group: 32, minimum: false }, 33, 70)).toBe(2 * 3 * (1024 + 64));
  expect(packedBytes({ bits: 4, group: 32, minimum: true }, 33, 70)).toBe(2 * 3 * (512 + 128));
  // One scale in float32 a column, and K in whole cache lines.
  expect(packedBytes({ bits: 8, group: 0, minimum: false }, 1, 70)).toBe(32 * 128 + 128);
  expect(packedBytes({ bits: 8, group: 16, minimum: false }, 0, 70)).toBe(0);
});

test("groups and their padding", () => {
  expect([groupsOf(32, 172), paddedColumns(32, 172)]).toEqual([6, 192]);
  expect([groupsOf(0, 172), paddedColumns(0, 172)]).toEqual([1, 192]);
  expect([groupsOf(128, 0), paddedColumns(128, 0)]).toEqual([0, 0]);
});

test("bits a weight of the blocks of GGUF files", () => {
  const bits = blockTypes.map((type) => (blockBytes(type, 1, 256) * 8) / 256);
  expect(Object.fromEntries(blockTypes.map((type, index) => [type, bits[index]]))).toEqual({
    q8_0: 8.5,
    q4_0: 4.5,
    q4_k: 4.5,
    q5_k: 5.5,
    q6_k: 6.5625,
  });
  expect(formatName(formatOfBlocks("q4_k"))).toBe("int4 in groups of 32 with minimums");
  expect(formatName({ bits: 8, group: 0, minimum: false })).toBe("int8 a column");
});

test("formats that cannot be", () => {
  expect(formatProblem({ bits: 4, group: 0, minimum: false })).toMatch(/8 bits and no minimum/);
  expect(formatProblem({ bits: 8, group: 0, minimum: true })).toMatch(/8 bits and no minimum/);
  expect(formatProblem({ bits: 4, group: 24, minimum: false })).toMatch(/multiples of 16 elements, not 24/);
  expect(formatProblem({ bits: 5 as 4, group: 32, minimum: false })).toMatch(/4 or 8 bits, not 5/);
  expect(formatProblem({ bits: 4, group: 128, minimum: true })).toBeUndefined();
});
