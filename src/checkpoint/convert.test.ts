import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fromBf16Bits, fromF16Bits, toBf16Bits, toF16Bits } from "../base/dtype.ts";
import { ShapeError } from "../base/errors.ts";
import { convertDType, convertInto } from "./convert.ts";

/** float32 values of every kind: from random bits, and around each rounding boundary of a half. */
const awkward = (() => {
  const bits = new Uint32Array(1 << 17);
  let state = 12345;
  for (let i = 0; i < bits.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bits[i] = state;
  }
  const boundaries: number[] = [];
  for (let exponent = 0; exponent < 256; exponent++) {
    for (const mantissa of [
      0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0x18000, 0x7fffff,
    ]) {
      boundaries.push((exponent << 23) | mantissa, (0x80000000 | (exponent << 23) | mantissa) >>> 0);
    }
  }
  bits.set(boundaries);
  return new Float32Array(bits.buffer);
})();
const everyBits = Uint16Array.from({ length: 65536 }, (_, bits) => bits);

/** Where two arrays first differ; -1 where they agree, NaN agreeing with NaN. */
function firstDifference(a: ArrayLike<number>, expected: (i: number) => number): number {
  for (let i = 0; i < a.length; i++) if (!Object.is(a[i]!, expected(i))) return i;
  return -1;
}

describe("agrees with the scalar conversions on", () => {
  test("float32 to bf16", () => {
    expect(firstDifference(convertDType(awkward, "f32", "bf16"), (i) => toBf16Bits(awkward[i]!))).toBe(-1);
  });

  test("float32 to f16", () => {
    expect(firstDifference(convertDType(awkward, "f32", "f16"), (i) => toF16Bits(awkward[i]!))).toBe(-1);
  });

  test("every bf16 and every f16 to float32 and float64", () => {
    for (const to of ["f32", "f64"] as const) {
      expect(firstDifference(convertDType(everyBits, "bf16", to), fromBf16Bits)).toBe(-1);
      expect(firstDifference(convertDType(everyBits, "f16", to), fromF16Bits)).toBe(-1);
    }
  });

  test("every f16 to bf16 and back the other way, over several blocks", () => {
    expect(
      firstDifference(convertDType(everyBits, "f16", "bf16"), (bits) => toBf16Bits(fromF16Bits(bits))),
    ).toBe(-1);
    expect(
      firstDifference(convertDType(everyBits, "bf16", "f16"), (bits) => toF16Bits(fromBf16Bits(bits))),
    ).toBe(-1);
  });
});

test("rounds to nearest, ties to even, by hand", () => {
  // bf16 has 8 bits of significand, f16 has 11; 65520 is half way from the largest half to the next.
  const values = Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, -0, Infinity);
  expect([...convertDType(values, "f32", "bf16")]).toEqual([0x3f80, 0x3f82, 0x3f81, 0x8000, 0x7f80]);
  const halves = Float32Array.of(
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    65519,
    65520,
    -1e9,
    2 ** -25,
    2 ** -25 * 1.01,
    2 ** -24,
  );
  expect([...convertDType(halves, "f32", "f16")]).toEqual([
    0x3c00, 0x3c02, 0x7bff, 0x7c00, 0xfc00, 0x0000, 0x0001, 0x0001,
  ]);
  expect(convertDType(Float64Array.of(0.1, 1e300), "f64", "f32")).toEqual(Float32Array.of(0.1, Infinity));
});

test("any bf16 or f16 that is a number survives a round trip", () => {
  fc.assert(
    fc.property(
      fc.uint16Array({ maxLength: 50 }),
      fc.constantFrom("bf16" as const, "f16" as const),
      (bits, dtype) => {
        const numbers = bits.filter(
          (value) => !Number.isNaN(dtype === "bf16" ? fromBf16Bits(value) : fromF16Bits(value)),
        );
        expect(convertDType(convertDType(numbers, dtype, "f32"), "f32", dtype)).toEqual(numbers);
      },
    ),
  );
});

test("writes into a view in the middle of other memory and nowhere else", () => {
  const memory = new Uint16Array(5).fill(7);
  convertInto(Float32Array.of(0, 1, 2).subarray(1), "f32", memory.subarray(2, 4), "bf16");
  expect([...memory]).toEqual([7, 7, 0x3f80, 0x4000, 7]);
});

test("one dtype is not copied; integers are not made of fractions", () => {
  const data = Float32Array.of(1);
  expect(convertDType(data, "f32", "f32")).toBe(data);
  expect(() => convertDType(data, "f32", "i32")).toThrow(ShapeError);
  expect(() => convertDType(Int8Array.of(1), "i8", "f32")).toThrow(/cannot convert i8 to f32/);
  expect(() => convertInto(data, "f32", new Uint16Array(2), "bf16")).toThrow(/1 elements into 2/);
});
