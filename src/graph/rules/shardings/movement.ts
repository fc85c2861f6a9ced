import { productOf, type Shape, sameDimension } from "../../../base/shape.ts";
import type { Label, ShardingRule } from "../sharding.ts";
import { labelsOf, leadingLabels } from "./common.ts";

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

/** How ops that move or reduce elements may be cut. */
export const movementShardings: { readonly [Op in MovementOp]: ShardingRule<Op> } = {
  reshape: ([x], [y]) => {
    const { before, after } = matchFactors(x!.shape, y!.shape);
    return { inputs: [before], outputs: [after], linear: [[0]] };
  },
  broadcast: ([x], outputs) => {
    const labels = labelsOf(outputs[0]);
    const offset = labels.length - x!.shape.length;
    const kept = x!.shape.map((size, axis) => (size === 1 ? null : labels[offset + axis]!));
    return { inputs: [kept], outputs: [labels], linear: [[0]] };
  },
  transpose: (inputs, _outputs, { permutation }) => {
    const labels = labelsOf(inputs[0]);
    return { inputs: [labels], outputs: [permutation.map((axis) => labels[axis]!)], linear: [[0]] };
  },
  slice: ([x], [y]) => between(x!.shape, y!.shape),
  pad_into: ([x], [y]) => between(x!.shape, y!.shape),
  concatenate: (inputs, outputs, { axis }) => {
    const labels = labelsOf(outputs[0]).with(axis, null);
    return { inputs: inputs.map(() => labels), outputs: [labels], linear: [inputs.map((_, index) => index)] };
  },
  gather: ([x, ids]) => {
    const rows = labelsOf(ids);
    const inner = labelsOf(x, rows.length).slice(1);
    return { inputs: [[null, ...inner], rows], outputs: [[...rows, ...inner]], linear: [[0]] };
  },
  scatter_add: ([x, ids]) => {
    const labels = labelsOf(x);
    const rows = labels.slice(0, ids!.shape.length);
    const inner = labels.slice(rows.length);
    return { inputs: [labels, rows], outputs: [[null, ...inner]], linear: [[0]] };
  },
  reduce: (inputs, _outputs, { reduction, axes, keep }) => {
    const sum = reduction === "sum";
    const labels = labelsOf(inputs[0]).map((label, axis) => (axes.includes(axis) && !sum ? null : label));
    const kept = labels.map((label, axis) => (axes.includes(axis) ? null : label));
    const output = keep ? kept : kept.filter((_, axis) => !axes.includes(axis));
    return { inputs: [labels], outputs: [output], linear: sum ? [[0]] : [] };
  },
  argmax: (inputs) => {
    const labels = leadingLabels(inputs[0]);
    return { inputs: [labels], outputs: [labels.slice(0, -1)], linear: [] };
  },
};

/** Dimensions that a slice or a padding leaves as they are may be cut. */
function between(from: Shape, to: Shape): ReturnType<ShardingRule<"slice">> {
  const labels = from.map((size, axis): Label => (sameDimension(size, to[axis]!) ? `d${axis}` : null));
  return { inputs: [labels], outputs: [labels], linear: [[0]] };
}

/**
 * The dimensions of two shapes of the same elements fall into groups of equal products. Equal parts of the leading
 * dimension of a group are equal parts of the group's elements, so the leading ones of both sides go together:
 * [tokens, heads * size] and [tokens, heads, size] share the tokens, and the heads with what they are a factor of.
 */
function matchFactors(before: Shape, after: Shape): { before: Label[]; after: Label[] } {
  const labels = { before: before.map((): Label => null), after: after.map((): Label => null) };
  let [i, j] = [0, 0];
  let group = 0;
  while (i < before.length && j < after.length) {
    let [endI, endJ] = [i + 1, j + 1];
    while (!sameDimension(productOf(before.slice(i, endI)), productOf(after.slice(j, endJ)))) {
      const [left, right] = [before.slice(i, endI), after.slice(j, endJ)].map(magnitude) as [number, number];
      if (left <= right && endI < before.length) endI++;
      else if (endJ < after.length) endJ++;
      else return labels;
    }
    const [leadI, leadJ] = [leading(before, i, endI), leading(after, j, endJ)];
    if (leadI >= 0 && leadJ >= 0) {
      labels.before[leadI] = `d${group}`;
      labels.after[leadJ] = `d${group}`;
      group++;
    }
    [i, j] = [endI, endJ];
  }
  return labels;
}

function magnitude(shape: Shape): number {
  return shape.reduce<number>(
    (product, size) => product * (typeof size === "number" ? size : size.scale * size.bound),
    1,
  );
}

/** The first dimension in [start, end) that is not 1; -1 where there is none. */
function leading(shape: Shape, start: number, end: number): number {
  for (let axis = start; axis < end; axis++) if (shape[axis] !== 1) return axis;
  return -1;
}
