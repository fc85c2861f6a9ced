import { type Dimension, sameShape, upperBound } from "../../../base/shape.ts";
import { binary, broadcast, cast, divide, multiply, reduce, reshape, sumTo, transpose } from "../../build.ts";
import { apply, shapeOf, type Value } from "../../graph.ts";
import type { GradientRule } from "../gradient.ts";

type MovementOp =
  | "reshape"
  | "broadcast"
  | "transpose"
  | "slice"
  | "pad_into"
  | "concatenate"
  | "gather"
  | "scatter_add"
  | "reduce";

/** Gradients of the ops that move or reduce elements. */
export const movementGradients: { readonly [Op in MovementOp]: GradientRule<Op> } = {
  reshape: (node, [g]) => [g && reshape(g, shapeOf(node.inputs[0]!))],
  broadcast: (node, [g]) => [g && sumTo(g, shapeOf(node.inputs[0]!))],
  transpose: (node, [g]) => {
    const inverse: number[] = [];
    node.attributes.permutation.forEach((axis, position) => {
      inverse[axis] = position;
    });
    return [g && transpose(g, inverse)];
  },
  slice: (node, [g]) => [
    g && apply("pad_into", [g], { starts: node.attributes.starts, shape: shapeOf(node.inputs[0]!) }),
  ],
  pad_into: (node, [g]) => [
    g && apply("slice", [g], { starts: node.attributes.starts, sizes: shapeOf(node.inputs[0]!) }),
  ],
  concatenate: (node, [g]) => {
    if (g === undefined) return [];
    const { axis } = node.attributes;
    let start = 0;
    return node.inputs.map((input) => {
      const sizes = shapeOf(input);
      const starts = sizes.map((_, position) => (position === axis ? start : 0));
      start += upperBound(sizes[axis]!);
      return apply("slice", [g], { starts, sizes });
    });
  },
  gather: (node, [g]) => {
    const [x, ids] = node.inputs as [Value, Value];
    if (g === undefined) return [];
    const shape = shapeOf(x);
    const sums = apply("scatter_add", [g, ids], { rows: upperBound(shape[0]!) });
    if (sameShape(shapeOf(sums), shape)) return [sums, undefined];
    // A symbolic number of rows: the sums have as many as there can be.
    return [apply("slice", [sums], { starts: shape.map(() => 0), sizes: shape }), undefined];
  },
  scatter_add: (node, [g]) => [g && apply("gather", [g, node.inputs[1]!], {}), undefined],
  reduce: (node, [g]) => {
    if (g === undefined) return [undefined];
    const x = node.inputs[0]!;
    const shape = shapeOf(x);
    const { axes, reduction } = node.attributes;
    const kept: Dimension[] = shape.map((dimension, axis) => (axes.includes(axis) ? 1 : dimension));
    const spread = (value: Value): Value => broadcast(reshape(value, kept), shape);
    if (reduction === "sum") return [spread(g)];
    // Equal extremes share the gradient.
    const hits = cast(binary("equal", x, reshape({ node, index: 0 }, kept)), "f32");
    const share = divide(hits, reduce("sum", hits, axes, true));
    return [multiply(share, reshape(g, kept))];
  },
};
