import { describe, expect, test } from "vitest";
import { toF16Bits } from "../../base/dtype.ts";
import { PhiloxStream } from "../../base/random.ts";
import { decodeTensor, dequantizeBlocks, quantizeBlocks } from "./blocks.ts";
import { type BlockTypeName, tensorBytes, tensorTypes } from "./types.ts";

const half = (value: number): number[] => [toF16Bits(value) & 255, toF16Bits(value) >> 8];
const decode = (type: BlockTypeName, bytes: number[]): number[] => {
  const values = new Float32Array(tensorTypes[type].elements);
  dequantizeBlocks(type, Uint8Array.from(bytes), values);
  return [...values];
};

describe("blocks made by hand", () => {
  test("Q8_0", () => {
    const numbers = Array.from({ length: 32 }, (_, i) => 8 * i - 128);
    const bytes = [...half(0.5), ...numbers.map((q) => q & 255)];
    expect(decode("Q8_0", bytes)).toEqual(numbers.map((q) => 0.5 * q));
  });

  test("Q4_0", () => {
    const bytes = [...half(-0.25), ...Array.from({ length: 16 }, (_, i) => i | ((15 - i) << 4))];
    const expected = Array.from({ length: 32 }, (_, i) => -0.25 * ((i < 16 ? i : 31 - i) - 8));
    expect(decode("Q4_0", bytes)).toEqual(expected);
  });

  // Scales 1, 2, 3, 4, 17, 34, 51, 63 and offsets 5, 6, 7, 8, 18, 33, 48, 62 of the eight parts, by hand:
  // of parts 4 to 7 the low four bits lie in bytes 8 to 11 and the upper two above parts 0 to 3.
  const scales = [1, 2, 3, 4, 17, 34, 51, 63];
  const offsets = [5, 6, 7, 8, 18, 33, 48, 62];
  const packed = [
    ...[1 | (1 << 6), 2 | (2 << 6), 3 | (3 << 6), 4 | (3 << 6)],
    ...[5 | (1 << 6), 6 | (2 << 6), 7 | (3 << 6), 8 | (3 << 6)],
    ...[1 | (2 << 4), 2 | (1 << 4), 3 | (0 << 4), 15 | (14 << 4)],
  ];
  const codes = (levels: number): number[] =>
    Array.from({ length: 256 }, (_, i) => (i * 7 + (i >> 5)) % levels);
  const parts = (q: number[]): number[] =>
    q.map((code, i) => 0.5 * scales[i >> 5]! * code - 0.25 * offsets[i >> 5]!);
  /** Elements 64 j + i and 64 j + 32 + i share byte 32 j + i. */
  const halves = (q: number[]): number[] =>
    Array.from({ length: 128 }, (_, byte) => {
      const first = 64 * (byte >> 5) + (byte & 31);
      return (q[first]! & 15) | ((q[first + 32]! & 15) << 4);
    });

  test("Q4_K", () => {
    const q = codes(16);
    expect(decode("Q4_K", [...half(0.5), ...half(0.25), ...packed, ...halves(q)])).toEqual(parts(q));
  });

  test("Q5_K", () => {
    const q = codes(32);
    const high = Array.from({ length: 32 }, (_, i) =>
      [0, 1, 2, 3, 4, 5, 6, 7].reduce((byte, part) => byte | ((q[32 * part + i]! >> 4) << part), 0),
    );
    expect(decode("Q5_K", [...half(0.5), ...half(0.25), ...packed, ...high, ...halves(q)])).toEqual(parts(q));
  });

  test("Q6_K", () => {
    const q = codes(64);
    const steps = Array.from({ length: 16 }, (_, part) => 9 * part - 70);
    const low = [0, 128].flatMap((base) =>
      Array.from({ length: 64 }, (_, i) => (q[base + i]! & 15) | ((q[base + i + 64]! & 15) << 4)),
    );
    const high = [0, 128].flatMap((base) =>
      Array.from({ length: 32 }, (_, i) =>
        [0, 1, 2, 3].reduce(
          (byte, quarter) => byte | ((q[base + 32 * quarter + i]! >> 4) << (2 * quarter)),
          0,
        ),
      ),
    );
    const bytes = [...low, ...high, ...steps.map((step) => step & 255), ...half(0.125)];
    expect(decode("Q6_K", bytes)).toEqual(q.map((code, i) => 0.125 * steps[i >> 4]! * (code - 32)));
  });
});

test("Q8_0 and Q4_0 of values whose codes are known", () => {
  const values = Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? 127 : i - 16));
  const q8 = new Uint8Array(34);
  quantizeBlocks("Q8_0", values, q8);
  expect([...q8]).toEqual([...half(1), 127, ...Array.from({ length: 31 }, (_, i) => (i - 15) & 255)]);

  // The extreme, -16, becomes code 0; its scale is 2. Halves round up: -15 / 2 + 8.5 = 1.
  const four = Float32Array.from({ length: 32 }, (_, i) => (i === 31 ? 15.5 : i - 16));
  const q4 = new Uint8Array(18);
  quantizeBlocks("Q4_0", four, q4);
  const expected = Array.from(four, (value) => Math.min(15, Math.floor(value / 2 + 8.5)));
  expect(expected.slice(0, 4)).toEqual([0, 1, 1, 2]);
  expect([...q4]).toEqual([
    ...half(2),
    ...Array.from({ length: 16 }, (_, i) => expected[i]! | (expected[i + 16]! << 4)),
  ]);
});

test.each([
  ["Q8_0", 1 / 127],
  ["Q4_0", 1 / 8],
  ["Q4_K", 0.12],
  ["Q5_K", 0.06],
  ["Q6_K", 1 / 28],
] as const)("%s keeps normal numbers within its step", (type, bound) => {
  const random = new PhiloxStream(5);
  const values = Float32Array.from({ length: 2048 }, (_, i) => (i < 512 ? 0 : random.nextNormal() * 0.02));
  const bytes = new Uint8Array(tensorBytes(type, values.length));
  quantizeBlocks(type, values, bytes);
  const back = new Float32Array(values.length);
  dequantizeBlocks(type, bytes, back);
  const block = tensorTypes[type].elements;
  for (let i = 0; i < values.length; i++) {
    const start = i - (i % block);
    const largest = Math.max(...values.subarray(start, start + block).map(Math.abs));
    expect(Math.abs(back[i]! - values[i]!)).toBeLessThanOrEqual(bound * largest * 1.01);
  }
  expect([...back.subarray(0, 512)].every((value) => value === 0)).toBe(true);
});

test("floats of 16 and 32 bits", () => {
  const values = new Float32Array(2);
  decodeTensor("F16", Uint8Array.from([...half(1.5), ...half(-3)]), values);
  expect([...values]).toEqual([1.5, -3]);
  decodeTensor("BF16", Uint8Array.from([0xc0, 0x3f, 0x40, 0xc0]), values);
  expect([...values]).toEqual([1.5, -3]);
  decodeTensor("F32", new Uint8Array(Float32Array.of(0.1, 2).buffer), values);
  expect([...values]).toEqual([...Float32Array.of(0.1, 2)]);
});
