import { type DType, isFloat, roundTo } from "../../../src/base/dtype.ts";
import { PhiloxStream } from "../../../src/base/random.ts";
import { elementCount } from "../../../src/base/shape.ts";

/** One operand of a sample: values that its dtype holds exactly. */
export interface SampleTensor {
  readonly shape: readonly number[];
  readonly dtype: DType;
  readonly values: readonly number[];
}

let stream = 0;

/** A tensor of given values, rounded to its dtype. */
export function tensor(shape: readonly number[], dtype: DType, values: readonly number[]): SampleTensor {
  return { shape, dtype, values: values.map((value) => roundTo(dtype, value)) };
}

/** Whole numbers, row-major. */
export function integers(shape: readonly number[], values: readonly number[]): SampleTensor {
  return tensor(shape, "i32", values);
}

/** Random whole numbers in [low, high). */
export function randomIntegers(shape: readonly number[], low: number, high: number): SampleTensor {
  const source = new PhiloxStream(20, ++stream);
  const values = Array.from({ length: elementCount(shape) }, () => low + source.nextBelow(high - low));
  return integers(shape, values);
}

/** Normal numbers times `scale`. */
export function normal(shape: readonly number[], dtype: DType, scale = 1): SampleTensor {
  const source = new PhiloxStream(21, ++stream);
  const values = Array.from({ length: elementCount(shape) }, () => source.nextNormal() * scale);
  return tensor(shape, isFloat(dtype) ? dtype : "f32", values);
}

/** Numbers in [0.3, 2.3): for what is defined or smooth only above 0. */
export function positive(shape: readonly number[], dtype: DType): SampleTensor {
  const source = new PhiloxStream(22, ++stream);
  const values = Array.from({ length: elementCount(shape) }, () => 0.3 + 2 * source.nextFloat());
  return tensor(shape, dtype, values);
}

/**
 * The numbers ±0.25, ±0.75, … in random order, no two alike where `distinct`: far from the kinks of `relu`,
 * `floor`, `maximum` and the like, and without ties.
 */
export function spread(shape: readonly number[], dtype: DType): SampleTensor {
  const source = new PhiloxStream(23, ++stream);
  const count = elementCount(shape);
  const values = Array.from({ length: count }, (_, i) => (Math.floor(i / 2) * 0.5 + 0.25) * (i % 2 ? -1 : 1));
  for (let i = count - 1; i > 0; i--) {
    const other = source.nextBelow(i + 1);
    [values[i], values[other]] = [values[other]!, values[i]!];
  }
  return tensor(shape, dtype, values);
}
