import { type DType, isFloat } from "../../../base/dtype.ts";
import { ShapeError } from "../../../base/errors.ts";
import { upperBound } from "../../../base/shape.ts";
import { add, cast, multiply, reshape } from "../../build.ts";
import { apply, dtypeOf, type Node, shapeOf, type Value } from "../../graph.ts";
import type { OpName } from "../../ops.ts";
import type { GradientRule } from "../gradient.ts";

type RowOp =
  | "rms_norm"
  | "layer_norm"
  | "rope"
  | "swiglu"
  | "softmax"
  | "cross_entropy"
  | "embedding"
  | "embedding_gradient"
  | "attention";

function output<Op extends OpName>(node: Node<Op>, index: number): Value {
  return { node, index };
}

/** Refuses gradients of results that exist for the op's own gradient: dropping them would be silently wrong. */
function refuseStatistics(node: Node, gradients: readonly (Value | undefined)[]): void {
  const index = gradients.findIndex((gradient, position) => position > 0 && gradient !== undefined);
  if (index < 0) return;
  throw new ShapeError("not_differentiable", `result ${index} of ${node.op} cannot be differentiated`, {
    ...(node.scope.name === "" ? {} : { where: node.scope.name }),
    expected: "a loss that depends on result 0 alone: the others are statistics for its gradient",
  });
}

function castParameter(value: Value, parameter: Value): Value {
  const dtype: DType = dtypeOf(parameter);
  return isFloat(dtype) ? cast(value, dtype) : value;
}

/** Gradients of the ops that work on rows, and of attention. */
export const rowGradients: { readonly [Op in RowOp]: GradientRule<Op> } = {
  rms_norm: (node, [g, ...statistics]) => {
    refuseStatistics(node, [g, ...statistics]);
    if (g === undefined) return [];
    const [x, weight] = node.inputs as [Value, Value];
    const gradient = apply("rms_norm_gradient", [g, x, weight, output(node, 1)], {});
    return [gradient, castParameter(output(gradient.node, 1), weight)];
  },
  layer_norm: (node, [g, ...statistics]) => {
    refuseStatistics(node, [g, ...statistics]);
    if (g === undefined) return [];
    const [x, weight, bias] = node.inputs as [Value, Value, Value | undefined];
    const gradient = apply("layer_norm_gradient", [g, x, weight, output(node, 1), output(node, 2)], {});
    const results: (Value | undefined)[] = [gradient, castParameter(output(gradient.node, 1), weight)];
    if (bias !== undefined) results.push(castParameter(output(gradient.node, 2), bias));
    return results;
  },
  rope: (node, [g]) => {
    const [, positions, frequencies] = node.inputs as [Value, Value, Value];
    const attributes = { ...node.attributes, inverse: !node.attributes.inverse };
    return [g && apply("rope", [g, positions, frequencies], attributes), undefined, undefined];
  },
  swiglu: (node, [g]) => {
    if (g === undefined) return [];
    const [gate, up] = node.inputs as [Value, Value];
    const gradient = apply("swiglu_gradient", [cast(g, dtypeOf(gate)), gate, up], {});
    return [gradient, output(gradient.node, 1)];
  },
  softmax: (node, [g]) => [g && apply("softmax_gradient", [g, output(node, 0)], {})],
  cross_entropy: (node, [g, gLogsumexp]) => {
    const [logits, targets] = node.inputs as [Value, Value];
    const direct = g && apply("cross_entropy_gradient", [g, logits, targets, output(node, 1)], {});
    if (gLogsumexp === undefined) return [direct, undefined];
    // d(logsumexp)/d(logits) is the softmax, in rows with an ignored target too.
    const rows = reshape(gLogsumexp, [...shapeOf(gLogsumexp), 1]);
    const spread = multiply(apply("softmax", [logits], {}), rows);
    return [cast(direct === undefined ? spread : add(direct, spread), dtypeOf(logits)), undefined];
  },
  embedding: (node, [g]) => {
    const [weight, ids] = node.inputs as [Value, Value];
    if (g === undefined) return [];
    const vocabulary = upperBound(shapeOf(weight)[0]!);
    return [castParameter(apply("embedding_gradient", [g, ids], { vocabulary }), weight), undefined];
  },
  // Linear in its operand: the adjoint looks the rows up.
  embedding_gradient: (node, [g]) => {
    const [dY, ids] = node.inputs as [Value, Value];
    return [g && apply("embedding", [g, ids], { dtype: dtypeOf(dY) }), undefined];
  },
  attention: (node, [g, ...statistics]) => {
    refuseStatistics(node, [g, ...statistics]);
    if (g === undefined) return [];
    const [q, k, v, offsets] = node.inputs as [Value, Value, Value, Value];
    const inputs = [g, q, k, v, output(node, 0), output(node, 1), offsets];
    const gradient = apply("attention_gradient", inputs, node.attributes);
    return [gradient, output(gradient.node, 1), output(gradient.node, 2), undefined];
  },
};
