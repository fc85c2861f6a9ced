import { type DType, isFloat } from "../../../base/dtype.ts";
import { type Dimension, formatShape, type Shape, sameDimension, sameShape } from "../../../base/shape.ts";
import type { TensorType } from "../../graph.ts";
import type { Fail } from "../shape.ts";

/** Checks the number of operands and returns them as a tuple that needs no further checks. */
export function operands(inputs: readonly TensorType[], low: number, fail: Fail, high = low): TensorType[] {
  if (inputs.length < low || inputs.length > high) {
    fail(`it takes ${low === high ? low : `${low} to ${high}`} operands, got ${inputs.length}`);
  }
  return [...inputs];
}

/** Fails unless the type has `rank` dimensions. */
export function requireRank(type: TensorType, rank: number, name: string, fail: Fail): void {
  if (type.shape.length !== rank) {
    fail(`${name} must have ${rank} dimensions, got ${formatShape(type.shape)}`);
  }
}

/** Fails unless the type holds fractions. */
export function requireFloat(type: TensorType, name: string, fail: Fail): void {
  if (!isFloat(type.dtype)) fail(`${name} must be of a float dtype, got ${type.dtype}`);
}

/** Fails unless the type is of `dtype`. */
export function requireDType(type: TensorType, dtype: DType, name: string, fail: Fail): void {
  if (type.dtype !== dtype) fail(`${name} must be ${dtype}, got ${type.dtype}`);
}

/** Fails unless the type is i32. */
export function requireInteger(type: TensorType, name: string, fail: Fail): void {
  requireDType(type, "i32", name, fail);
}

/** Fails unless the type is f32 of a shape: what an op leaves for its gradient. */
export function requireStatistic(type: TensorType, shape: Shape, name: string, fail: Fail): void {
  requireDType(type, "f32", name, fail);
  if (!sameShape(type.shape, shape)) {
    fail(`${name} must be ${formatShape(shape)}, got ${formatShape(type.shape)}`);
  }
}

/** Fails unless the shapes are equal. */
export function requireSame(a: Shape, b: Shape, what: string, fail: Fail): void {
  if (!sameShape(a, b)) fail(`${what} must have the same shape: ${formatShape(a)} and ${formatShape(b)}`);
}

/** Fails unless the dimensions are equal. */
export function requireEqual(a: Dimension, b: Dimension, what: string, fail: Fail): void {
  if (!sameDimension(a, b)) fail(`${what} differ: ${formatShape([a])} and ${formatShape([b])}`);
}

/** The shape that operands broadcast to, as in NumPy: aligned at the end, ones stretch. */
export function broadcastShapes(shapes: readonly Shape[], fail: Fail): Shape {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  const result: Dimension[] = new Array<Dimension>(rank).fill(1);
  for (const shape of shapes) {
    shape.forEach((dimension, axis) => {
      const position = rank - shape.length + axis;
      const present = result[position]!;
      if (present === 1) result[position] = dimension;
      else if (dimension !== 1 && !sameDimension(present, dimension)) {
        fail(
          `shapes do not broadcast: ${shapes.map(formatShape).join(" and ")}`,
          "equal sizes, or 1, in each dimension from the last",
        );
      }
    });
  }
  return result;
}

/** The last dimension. */
export function lastDimension(shape: Shape, fail: Fail): Dimension {
  return shape.at(-1) ?? fail("a scalar has no last dimension");
}
