import { type Dimension, formatShape, type Shape, sameShape } from "../../../base/shape.ts";
import type { TensorType } from "../../graph.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import {
  operands,
  requireDType,
  requireEqual,
  requireFloat,
  requireInteger,
  requireRank,
  requireSame,
} from "./common.ts";

/** Bytes of a [K, N] matrix in packed panels; the layout is in docs/kernels.md. */
export function packedBytes(rows: number, columns: number, elements: "f32" | "bf16"): number {
  const panels = Math.ceil(columns / 32);
  return elements === "f32" ? panels * 32 * rows * 4 : panels * 32 * Math.ceil(rows / 32) * 32 * 2;
}

function checkEpilogue(
  extra: readonly TensorType[],
  bias: boolean,
  residual: boolean,
  result: Shape,
  fail: Fail,
): void {
  if (extra.length !== Number(bias) + Number(residual))
    fail("the operands do not match the epilogue's attributes");
  if (bias) requireSame(extra[0]!.shape, [result.at(-1)!], "the bias and the columns", fail);
  if (residual) requireSame(extra.at(-1)!.shape, result, "the residual and the result", fail);
}

function productShape(
  a: TensorType,
  b: TensorType,
  transposeA: boolean,
  transposeB: boolean,
  fail: Fail,
): Shape {
  if (a.shape.length < 2 || b.shape.length < 2)
    fail("operands must be matrices", "[.., M, K] and [.., K, N]");
  const [aRows, aColumns] = a.shape.slice(-2) as [Dimension, Dimension];
  const [bRows, bColumns] = b.shape.slice(-2) as [Dimension, Dimension];
  const batch = a.shape.slice(0, -2);
  const bBatch = b.shape.slice(0, -2);
  if (bBatch.length > 0 && !sameShape(batch, bBatch)) {
    fail(`leading dimensions differ: ${formatShape(batch)} and ${formatShape(bBatch)}`);
  }
  requireEqual(transposeA ? aRows : aColumns, transposeB ? bColumns : bRows, "inner sizes", fail);
  return [...batch, transposeA ? aColumns : aRows, transposeB ? bRows : bColumns];
}

type MatrixOp =
  | "matmul"
  | "pack_matrix"
  | "matmul_packed"
  | "linear_cross_entropy"
  | "linear_cross_entropy_gradient";

/** Shapes of the matrix products. */
export const matrixShapes: { readonly [Op in MatrixOp]: ShapeRule<Op> } = {
  matmul: (inputs, { transposeA, transposeB, bias, residual, dtype }, fail) => {
    const [a, b, ...extra] = operands(inputs, 2, fail, 4);
    requireFloat(a!, "a", fail);
    requireFloat(b!, "b", fail);
    const shape = productShape(a!, b!, transposeA, transposeB, fail);
    checkEpilogue(extra, bias, residual, shape, fail);
    return [{ shape, dtype }];
  },
  pack_matrix: (inputs, { transposeB, elements }, fail) => {
    const [b] = operands(inputs, 1, fail);
    requireRank(b!, 2, "b", fail);
    const [first, second] = b!.shape;
    if (typeof first !== "number" || typeof second !== "number") return fail("b must have fixed sizes");
    const bytes = transposeB ? packedBytes(second, first, elements) : packedBytes(first, second, elements);
    return [{ shape: [bytes], dtype: "u8" }];
  },
  matmul_packed: (inputs, { columns, elements, bias, residual, dtype }, fail) => {
    const [a, packed, ...extra] = operands(inputs, 2, fail, 4);
    requireFloat(a!, "a", fail);
    if (a!.shape.length < 2) fail("a must be a matrix");
    requireDType(packed!, "u8", "the packed matrix", fail);
    const rows = a!.shape.at(-1)!;
    const bytes = typeof rows === "number" ? packedBytes(rows, columns, elements) : undefined;
    if (bytes !== undefined && !sameShape(packed!.shape, [bytes])) {
      fail(`the packed matrix must have ${bytes} bytes for [${String(rows)}, ${columns}]`);
    }
    const shape = [...a!.shape.slice(0, -1), columns];
    checkEpilogue(extra, bias, residual, shape, fail);
    return [{ shape, dtype }];
  },
  linear_cross_entropy: (inputs, _attributes, fail) => {
    const [hidden, weight, targets] = operands(inputs, 3, fail);
    return [checkLoss(hidden!, weight!, targets!, fail)];
  },
  linear_cross_entropy_gradient: (inputs, _attributes, fail) => {
    const [dLosses, hidden, weight, targets] = operands(inputs, 4, fail);
    const losses = checkLoss(hidden!, weight!, targets!, fail);
    requireFloat(dLosses!, "the gradient of the losses", fail);
    requireSame(dLosses!.shape, losses.shape, "the losses and their gradients", fail);
    // Kernels add up the parts of the weight's gradient in its memory, hence f32 whatever the weight is.
    return [losses, hidden!, { shape: weight!.shape, dtype: "f32" }];
  },
};

function checkLoss(hidden: TensorType, weight: TensorType, targets: TensorType, fail: Fail): TensorType {
  requireRank(hidden, 2, "hidden", fail);
  requireFloat(hidden, "hidden", fail);
  requireRank(weight, 2, "weight", fail);
  requireFloat(weight, "weight", fail);
  requireRank(targets, 1, "targets", fail);
  requireInteger(targets, "targets", fail);
  requireEqual(hidden.shape[0]!, targets.shape[0]!, "the tokens of hidden and targets", fail);
  requireEqual(hidden.shape[1]!, weight.shape[1]!, "the sizes of hidden and weight", fail);
  return { shape: targets.shape, dtype: "f32" };
}
