import { type DType, roundTo } from "../../../base/dtype.ts";
import { ShapeError } from "../../../base/errors.ts";
import { elementCount, stridesOf } from "../../../base/shape.ts";
import type { ReferenceTensor } from "../reference.ts";

/**
 * Visits the rows (the last axis) of a tensor of `shape` in row-major order, with the position at which each
 * starts in a buffer addressed by `strides` from `offset`. A scalar is one row of one element.
 */
export function forEachRow(
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
  visit: (position: number, row: number) => void,
): void {
  const outer = shape.length - 1;
  const rows = elementCount(shape.slice(0, -1));
  const index = new Array<number>(Math.max(outer, 0)).fill(0);
  let position = offset;
  for (let row = 0; row < rows; row++) {
    visit(position, row);
    for (let axis = outer - 1; axis >= 0; axis--) {
      position += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      position -= strides[axis]! * shape[axis]!;
      index[axis] = 0;
    }
  }
}

/** The elements of `shape` that `strides` address in `values` from `offset`, row-major. */
export function readStrided(
  values: Float64Array,
  shape: readonly number[],
  strides: readonly number[],
  offset = 0,
): Float64Array {
  const result = new Float64Array(elementCount(shape));
  if (result.length === 0) return result;
  const size = shape.at(-1) ?? 1;
  const step = strides.at(-1) ?? 1;
  forEachRow(shape, strides, offset, (position, row) => {
    for (let i = 0; i < size; i++) result[row * size + i] = values[position + i * step]!;
  });
  return result;
}

/** Writes a tensor into `target` where `strides` address it from `offset`. */
export function writeStrided(
  source: ReferenceTensor,
  target: Float64Array,
  strides: readonly number[],
  offset: number,
): void {
  if (source.values.length === 0) return;
  const size = source.shape.at(-1) ?? 1;
  const step = strides.at(-1) ?? 1;
  forEachRow(source.shape, strides, offset, (position, row) => {
    for (let i = 0; i < size; i++) target[position + i * step] = source.values[row * size + i]!;
  });
}

/** A tensor's values stretched to a shape as NumPy broadcasts; the same array where nothing stretches. */
export function broadcastTo(tensor: ReferenceTensor, shape: readonly number[]): Float64Array {
  if (tensor.values.length === elementCount(shape)) return tensor.values;
  const missing = shape.length - tensor.shape.length;
  const own = stridesOf(tensor.shape);
  const strides = shape.map((_, axis) => {
    const inner = axis - missing;
    return inner < 0 || tensor.shape[inner] === 1 ? 0 : own[inner]!;
  });
  return readStrided(tensor.values, shape, strides);
}

/** Rounds values to a dtype of integers in place; leaves those of a float dtype as they are. */
export function truncateToIntegers(values: Float64Array, dtype: DType): Float64Array {
  if (dtype !== "i32" && dtype !== "i8" && dtype !== "u8") return values;
  for (let i = 0; i < values.length; i++) values[i] = roundTo(dtype, values[i]!);
  return values;
}

/** Checks that index `position` of an operand lies in [0, limit). @throws ShapeError naming op and operand. */
export function checkIndex(
  op: string,
  operand: string,
  value: number,
  position: number,
  limit: number,
): number {
  if (value >= 0 && value < limit) return value;
  throw new ShapeError("index_out_of_range", `${op}: ${operand}[${position}] is out of range`, {
    expected: limit === 0 ? "no index at all: there is nothing to point at" : `0 to ${limit - 1}`,
    received: String(value),
  });
}

/** The last dimension and how many rows of it there are. */
export function rowsOf(tensor: ReferenceTensor): { readonly rows: number; readonly size: number } {
  return { rows: elementCount(tensor.shape.slice(0, -1)), size: tensor.shape.at(-1)! };
}
