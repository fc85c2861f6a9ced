import { bytesPerElement, type DType, fromF16Bits, isFloat, type TensorData, viewOf } from "../base/dtype.ts";
import { InternalError, ShapeError } from "../base/errors.ts";

// Every conversion goes through float32. One loop a pair over typed arrays, on their raw bits, takes one to
// three nanoseconds an element; pairs without float32 at either end go block by block through the cache.
const blockElements = 4096;

/**
 * The same elements in another dtype, in memory of their own; where the dtypes are one, `data` itself.
 * Rounds to nearest, ties to even; what is too large for f16 becomes infinity; NaN stays NaN.
 * @throws ShapeError where the dtypes differ and one of them is an integer.
 */
export function convertDType(data: TensorData, from: DType, to: DType): TensorData {
  if (from === to) return data;
  const converted = viewOf(to, new ArrayBuffer(data.length * bytesPerElement(to)));
  convertInto(data, from, converted, to);
  return converted;
}

/**
 * Writes the elements of `source` into `destination`, which has as many, in another dtype. Rounds as
 * `convertDType` does. The two must not overlap.
 * @throws ShapeError where the dtypes differ and one of them is an integer.
 */
export function convertInto(source: TensorData, from: DType, destination: TensorData, to: DType): void {
  if (source.length !== destination.length) {
    throw new InternalError(`cannot convert ${source.length} elements into ${destination.length}`);
  }
  if (from === to) {
    destination.set(source);
    return;
  }
  if (!isFloat(from) || !isFloat(to)) {
    throw new ShapeError("dtype_conversion", `cannot convert ${from} to ${to}`, {
      expected: "two of f32, bf16, f16 and f64",
    });
  }
  if (from === "f32") narrow(source as Float32Array, destination, to);
  else if (to === "f32") widen(source, from, destination as Float32Array);
  else {
    const block = new Float32Array(Math.min(blockElements, source.length));
    for (let start = 0; start < source.length; start += blockElements) {
      const part = source.subarray(start, start + blockElements);
      const middle = block.subarray(0, part.length);
      widen(part, from, middle);
      narrow(middle, destination.subarray(start, start + blockElements), to);
    }
  }
}

function widen(source: TensorData, from: DType, destination: Float32Array): void {
  const bits = new Uint32Array(destination.buffer, destination.byteOffset, destination.length);
  if (from === "bf16") bf16ToF32(source as Uint16Array, bits);
  else if (from === "f16") f16ToF32(source as Uint16Array, bits);
  else destination.set(source);
}

function narrow(source: Float32Array, destination: TensorData, to: DType): void {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length);
  if (to === "bf16") f32ToBf16(bits, destination as Uint16Array);
  else if (to === "f16") f32ToF16(source, bits, destination as Uint16Array);
  else destination.set(source);
}

function bf16ToF32(source: Uint16Array, bits: Uint32Array): void {
  for (let i = 0; i < bits.length; i++) bits[i] = source[i]! << 16;
}

function f32ToBf16(bits: Uint32Array, destination: Uint16Array): void {
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i]!;
    destination[i] =
      (value & 0x7fffffff) > 0x7f800000
        ? (value >>> 16) | 0x40
        : (value + 0x7fff + ((value >>> 16) & 1)) >>> 16;
  }
}

let halfTable: Uint32Array | undefined;

/** The float32 bits of every half: 256 kB, which stays in the second-level cache. */
function f16Table(): Uint32Array {
  if (halfTable !== undefined) return halfTable;
  const values = Float32Array.from({ length: 65536 }, (_, bits) => fromF16Bits(bits));
  halfTable = new Uint32Array(values.buffer);
  return halfTable;
}

function f16ToF32(source: Uint16Array, bits: Uint32Array): void {
  const table = f16Table();
  for (let i = 0; i < bits.length; i++) bits[i] = table[source[i]!]!;
}

function f32ToF16(source: Float32Array, bits: Uint32Array, destination: Uint16Array): void {
  // Adding and taking away 2^52 rounds a float64 to an integer, ties to even.
  const integers = 2 ** 52;
  for (let i = 0; i < bits.length; i++) {
    const value = bits[i]!;
    const sign = (value >>> 16) & 0x8000;
    const magnitude = value & 0x7fffffff;
    if (magnitude >= 0x477ff000) destination[i] = sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
    else if (magnitude >= 0x38800000) {
      destination[i] = sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
    } else {
      // Subnormal halves are multiples of 2^-24.
      destination[i] = sign | (Math.abs(source[i]!) * 2 ** 24 + integers - integers);
    }
  }
}
