import { elementCount, stridesOf } from "../../../base/shape.ts";
import type { Reduction } from "../../ops.ts";
import type { ReferenceRule } from "../reference.ts";
import { broadcastTo, checkIndex, readStrided, rowsOf, writeStrided } from "./common.ts";

type MovementOp =
  | "reshape"
  | "broadcast"
  | "transpose"
  | "slice"
  | "pad_into"
  | "concatenate"
  | "gather"
  | "scatter_add"
  | "reduce"
  | "argmax";

const identities: Record<Reduction, number> = {
  sum: 0,
  maximum: Number.NEGATIVE_INFINITY,
  minimum: Number.POSITIVE_INFINITY,
};

/** The position of `starts` in a row-major tensor of `strides`. */
function offsetOf(starts: readonly number[], strides: readonly number[]): number {
  return starts.reduce((sum, start, axis) => sum + start * strides[axis]!, 0);
}

/** Meaning of the ops that move or reduce elements. */
export const movementReferences: { readonly [Op in MovementOp]: ReferenceRule<Op> } = {
  reshape: ([x]) => [x!.values],
  broadcast: ([x], _attributes, [shape]) => [broadcastTo(x!, shape!)],
  transpose: ([x], { permutation }, [shape]) => {
    const strides = stridesOf(x!.shape);
    const permuted = permutation.map((axis) => strides[axis]!);
    return [readStrided(x!.values, shape!, permuted)];
  },
  slice: ([x], { starts }, [shape]) => {
    const strides = stridesOf(x!.shape);
    return [readStrided(x!.values, shape!, strides, offsetOf(starts, strides))];
  },
  pad_into: ([x], { starts }, [shape]) => {
    const result = new Float64Array(elementCount(shape!));
    const strides = stridesOf(shape!);
    writeStrided(x!, result, strides, offsetOf(starts, strides));
    return [result];
  },
  concatenate: (inputs, { axis }, [shape]) => {
    const result = new Float64Array(elementCount(shape!));
    const strides = stridesOf(shape!);
    let start = 0;
    for (const input of inputs) {
      writeStrided(input, result, strides, start * strides[axis]!);
      start += input.shape[axis]!;
    }
    return [result];
  },
  gather: ([x, ids], _attributes, [shape]) => {
    const size = elementCount(x!.shape.slice(1));
    const result = new Float64Array(elementCount(shape!));
    ids!.values.forEach((id, position) => {
      const row = checkIndex("gather", "ids", id, position, x!.shape[0]!);
      result.set(x!.values.subarray(row * size, (row + 1) * size), position * size);
    });
    return [result];
  },
  scatter_add: ([x, ids], { rows }, [shape]) => {
    const size = elementCount(shape!.slice(1));
    const result = new Float64Array(rows * size);
    ids!.values.forEach((id, position) => {
      const row = checkIndex("scatter_add", "ids", id, position, rows);
      for (let i = 0; i < size; i++) result[row * size + i]! += x!.values[position * size + i]!;
    });
    return [result];
  },
  reduce: ([x], { reduction, axes }) => {
    const kept = x!.shape.map((_, axis) => axis).filter((axis) => !axes.includes(axis));
    const reduced = x!.shape.map((_, axis) => axis).filter((axis) => axes.includes(axis));
    const order = [...kept, ...reduced];
    const strides = stridesOf(x!.shape);
    const ordered = readStrided(
      x!.values,
      order.map((axis) => x!.shape[axis]!),
      order.map((axis) => strides[axis]!),
    );
    const size = elementCount(reduced.map((axis) => x!.shape[axis]!));
    const result = new Float64Array(elementCount(kept.map((axis) => x!.shape[axis]!)));
    for (let row = 0; row < result.length; row++) {
      let value = identities[reduction];
      for (let i = row * size; i < (row + 1) * size; i++) {
        const next = ordered[i]!;
        if (reduction === "sum") value += next;
        else if (reduction === "maximum") value = Math.max(value, next);
        else value = Math.min(value, next);
      }
      result[row] = value;
    }
    return [result];
  },
  argmax: ([x]) => {
    const { rows, size } = rowsOf(x!);
    const result = new Float64Array(rows);
    for (let row = 0; row < rows; row++) {
      let best = 0;
      for (let i = 1; i < size; i++) {
        if (x!.values[row * size + i]! > x!.values[row * size + best]!) best = i;
      }
      result[row] = best;
    }
    return [result];
  },
};
