import { elementCount, stridesOf } from "../../../base/shape.ts";
import type { Activation } from "../../ops.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";
import { readStrided } from "./common.ts";
import { crossEntropy, crossEntropyGradient } from "./cross_entropy.ts";
import { elementwiseFunctions } from "./mathematics.ts";

type MatrixOp =
  | "matmul"
  | "pack_matrix"
  | "matmul_packed"
  | "linear_cross_entropy"
  | "linear_cross_entropy_gradient";

/** The tensor with its last two axes exchanged, its values moved along. */
function transposed(x: ReferenceTensor): ReferenceTensor {
  const swap = (axes: readonly number[]): number[] => [...axes.slice(0, -2), axes.at(-1)!, axes.at(-2)!];
  const shape = swap(x.shape);
  return { shape, values: readStrided(x.values, shape, swap(stridesOf(x.shape))) };
}

/** a [batch.., M, K] times b [batch.., K, N], or b [K, N] for every batch. */
function product(a: ReferenceTensor, b: ReferenceTensor): ReferenceTensor {
  const [rows, inner] = a.shape.slice(-2) as [number, number];
  const columns = b.shape.at(-1)!;
  const batch = a.shape.slice(0, -2);
  const batches = elementCount(batch);
  const values = new Float64Array(batches * rows * columns);
  const bStep = b.shape.length > 2 ? inner * columns : 0;
  for (let row = 0; row < batches * rows; row++) {
    const bStart = Math.floor(row / rows) * bStep;
    for (let k = 0; k < inner; k++) {
      const factor = a.values[row * inner + k]!;
      for (let column = 0; column < columns; column++) {
        values[row * columns + column]! += factor * b.values[bStart + k * columns + column]!;
      }
    }
  }
  return { shape: [...batch, rows, columns], values };
}

export interface Epilogue {
  readonly activation: Activation;
  readonly bias: boolean;
  readonly residual: boolean;
}

/** activation(c + bias) + residual, written over `values`. */
export function applyEpilogue(
  values: Float64Array,
  extra: readonly ReferenceTensor[],
  epilogue: Epilogue,
): Float64Array {
  const { activation, bias, residual } = epilogue;
  if (bias) {
    const row = extra[0]!.values;
    for (let i = 0; i < values.length; i++) values[i]! += row[i % row.length]!;
  }
  if (activation !== "none") {
    const activate = elementwiseFunctions[activation];
    for (let i = 0; i < values.length; i++) values[i] = activate(values[i]!, 0, 0);
  }
  if (residual) {
    const added = extra.at(-1)!.values;
    for (let i = 0; i < values.length; i++) values[i]! += added[i]!;
  }
  return values;
}

/** Meaning of the matrix products. */
export const matrixReferences: { readonly [Op in MatrixOp]: ReferenceRule<Op> } = {
  matmul: ([a, b, ...extra], attributes) => {
    const left = attributes.transposeA ? transposed(a!) : a!;
    const right = attributes.transposeB ? transposed(b!) : b!;
    return [applyEpilogue(product(left, right).values, extra, attributes)];
  },
  // The panels are a matter of kernels: here the packed bytes begin with the plain [K, N] values, then zeros.
  pack_matrix: ([b], { transposeB }, [shape]) => {
    const packed = new Float64Array(shape![0]!);
    packed.set(transposeB ? transposed(b!).values : b!.values);
    return [packed];
  },
  matmul_packed: ([a, packed, ...extra], attributes) => {
    const shape = [a!.shape.at(-1)!, attributes.columns];
    const b = { shape, values: packed!.values.subarray(0, elementCount(shape)) };
    const rows = { shape: [elementCount(a!.shape.slice(0, -1)), shape[0]!], values: a!.values };
    return [applyEpilogue(product(rows, b).values, extra, attributes)];
  },
  linear_cross_entropy: ([hidden, weight, targets]) => {
    const logits = product(hidden!, transposed(weight!));
    return [crossEntropy("linear_cross_entropy", logits, targets!).losses];
  },
  linear_cross_entropy_gradient: ([dLosses, hidden, weight, targets]) => {
    const op = "linear_cross_entropy_gradient";
    const logits = product(hidden!, transposed(weight!));
    const { losses, logsumexp } = crossEntropy(op, logits, targets!);
    const values = crossEntropyGradient(op, dLosses!.values, logits, targets!, logsumexp);
    const dLogits = { shape: logits.shape, values };
    return [losses, product(dLogits, weight!).values, product(transposed(dLogits), hidden!).values];
  },
};
