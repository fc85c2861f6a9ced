import { fromF16Bits, toF16Bits } from "../../base/dtype.ts";

/** The half-precision number at `at`. */
export function f16At(bytes: Uint8Array, at: number): number {
  return fromF16Bits(bytes[at]! | (bytes[at + 1]! << 8));
}

/** Writes a number in half precision at `at` and gives the number that it became. */
export function putF16(bytes: Uint8Array, at: number, value: number): number {
  const bits = toF16Bits(value);
  bytes[at] = bits & 255;
  bytes[at + 1] = bits >> 8;
  return fromF16Bits(bits);
}
