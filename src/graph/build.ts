import { type DType, encode } from "../base/dtype.ts";
import { type Dimension, productOf, type Shape, sameDimension, sameShape } from "../base/shape.ts";
import type { BinaryOperation, ElementwiseOperation, UnaryOperation } from "./expression.ts";
import { apply, dtypeOf, shapeOf, type Value } from "./graph.ts";
import type { LeafKind, OpAttributes, Reduction } from "./ops.ts";

/** Short hands for recording nodes: what gradient rules, passes and `tensor/` build programs from. */

/** Memory of the caller, named. */
export function leaf(name: string, kind: LeafKind, shape: Shape, dtype: DType): Value<"leaf"> {
  return apply("leaf", [], { name, kind, shape, dtype });
}

/** A tensor of one value. */
export function fill(value: number, shape: Shape, dtype: DType): Value {
  return apply("fill", [], { value, shape, dtype });
}

/** A scalar of f32 by default. */
export function scalar(value: number, dtype: DType = "f32"): Value {
  return fill(value, [], dtype);
}

/** Data that are part of the program. */
export function constant(values: ArrayLike<number>, shape: readonly number[], dtype: DType = "f32"): Value {
  return apply("constant", [], { data: encode(dtype, values), shape, dtype });
}

/** One elementwise operation; operands broadcast. */
export function elementwise(operation: ElementwiseOperation, ...operands: readonly Value[]): Value {
  return apply("elementwise", operands, { operation });
}

/** A unary elementwise operation. */
export function unary(operation: UnaryOperation, x: Value): Value {
  return elementwise(operation, x);
}

/** A binary elementwise operation with a value or a number. */
export function binary(operation: BinaryOperation, a: Value, b: Value | number): Value {
  return elementwise(operation, a, typeof b === "number" ? scalar(b, scalarDType(a)) : b);
}

function scalarDType(value: Value): DType {
  const dtype = dtypeOf(value);
  return dtype === "bf16" || dtype === "f16" ? "f32" : dtype;
}

/** a + b */
export function add(a: Value, b: Value | number): Value {
  return binary("add", a, b);
}

/** a - b */
export function subtract(a: Value, b: Value | number): Value {
  return binary("subtract", a, b);
}

/** a * b */
export function multiply(a: Value, b: Value | number): Value {
  return binary("multiply", a, b);
}

/** a / b */
export function divide(a: Value, b: Value | number): Value {
  return binary("divide", a, b);
}

/** The values in another dtype; the value itself where it has it already. */
export function cast(x: Value, dtype: DType): Value {
  return dtypeOf(x) === dtype ? x : apply("cast", [x], { dtype });
}

/** The elements in another shape; the value itself where it has it already. */
export function reshape(x: Value, shape: Shape): Value {
  return sameShape(shapeOf(x), shape) ? x : apply("reshape", [x], { shape });
}

/** Stretched to a shape; the value itself where it has it already. */
export function broadcast(x: Value, shape: Shape): Value {
  return sameShape(shapeOf(x), shape) ? x : apply("broadcast", [x], { shape });
}

/** Axes in another order. */
export function transpose(x: Value, permutation: readonly number[]): Value {
  return permutation.every((axis, index) => axis === index) ? x : apply("transpose", [x], { permutation });
}

/** A reduction over axes. */
export function reduce(reduction: Reduction, x: Value, axes: readonly number[], keep = false): Value {
  return axes.length === 0 ? x : apply("reduce", [x], { reduction, axes, keep });
}

/** Product of matrices with the defaults of a plain one. */
export function matmul(
  a: Value,
  b: Value,
  attributes: Partial<Pick<OpAttributes["matmul"], "transposeA" | "transposeB" | "dtype">> = {},
): Value {
  return apply("matmul", [a, b], {
    transposeA: false,
    transposeB: false,
    activation: "none",
    bias: false,
    residual: false,
    dtype: dtypeOf(a),
    ...attributes,
  });
}

/** Sums `x` down to `shape`, which broadcasts to x's shape: the gradient of that broadcast. */
export function sumTo(x: Value, shape: Shape): Value {
  const from = shapeOf(x);
  if (sameShape(from, shape)) return x;
  const offset = from.length - shape.length;
  const axes = from
    .map((_, axis) => axis)
    .filter((axis) => axis < offset || !sameDimension(from[axis]!, shape[axis - offset]!));
  return reshape(reduce("sum", x, axes, true), shape);
}

/** All dimensions but the last as one: `[rows, last]`. */
export function asRows(x: Value): Value {
  const shape = shapeOf(x);
  return reshape(x, [productOf(shape.slice(0, -1)), shape.at(-1) as Dimension]);
}
