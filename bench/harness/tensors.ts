import { bytesPerElement, type DType, dtypeCode, type TensorData, viewOf } from "../../src/base/dtype.ts";
import { loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";

/** Dtypes that benchmarks compute in. */
export type FloatDType = "f32" | "bf16";

/** A tensor with its memory. */
export interface HeldTensor extends NativeTensor {
  readonly data: TensorData;
  readonly type: DType;
}

/** Zeros of a shape, in memory aligned as kernels like it. */
export function zeros(type: DType, shape: readonly number[]): HeldTensor {
  const elements = shape.reduce((product, size) => product * size, 1);
  const data = viewOf(type, loadAddon().allocate(elements * bytesPerElement(type)), 0, elements);
  return { data, dtype: dtypeCode(type), shape, type };
}

/** Reproducible numbers in [-1, 1), exact in bf16, so that both dtypes hold the same values. */
export function noise(type: FloatDType, shape: readonly number[], seed: number): HeldTensor {
  const tensor = zeros(type, shape);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  let state = seed >>> 0;
  for (let index = 0; index < tensor.data.length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    // The low bits of this generator repeat early; eight high ones are what a bf16 mantissa holds.
    float[0] = (state >>> 24) / 128 - 1;
    tensor.data[index] = type === "bf16" ? bits[0]! >>> 16 : float[0];
  }
  return tensor;
}

/** Element `index` of a float tensor. */
export function read(tensor: HeldTensor, index: number): number {
  const value = tensor.data[index]!;
  if (tensor.type !== "bf16") return value;
  const bits = new Uint32Array([value << 16]);
  return new Float32Array(bits.buffer)[0]!;
}

/** A tensor as float64. */
export function toFloat64(tensor: HeldTensor): Float64Array {
  if (tensor.type !== "bf16") return Float64Array.from(tensor.data);
  const bits = Uint32Array.from(tensor.data, (value) => value << 16);
  return Float64Array.from(new Float32Array(bits.buffer));
}

/** The Frobenius norm of the difference, relative to that of `exact`. */
export function relativeError(found: ArrayLike<number>, exact: ArrayLike<number>): number {
  let difference = 0;
  let size = 0;
  for (let index = 0; index < exact.length; index++) {
    difference += (found[index]! - exact[index]!) ** 2;
    size += exact[index]! ** 2;
  }
  return Math.sqrt(difference / size);
}

/** The error that a kernel may have: docs of correctness, by dtype and length of the sums. */
export function tolerance(type: FloatDType, reduction: number): number {
  return type === "f32" ? 1e-6 * Math.sqrt(reduction) : 4e-3;
}

/** @throws where a result is wrong: no time is reported for it. */
export function requireClose(what: string, error: number, allowed: number): void {
  if (error <= allowed) return;
  throw new Error(
    `${what} is wrong: relative error ${error.toExponential(1)}, allowed ${allowed.toExponential(1)}`,
  );
}
