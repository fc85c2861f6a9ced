import type { DType } from "../../../base/dtype.ts";
import { asRows, broadcast, cast, matmul, reshape, sumTo, unary } from "../../build.ts";
import { apply, dtypeOf, shapeOf, type Value } from "../../graph.ts";
import type { GradientRule } from "../gradient.ts";
import { elementwiseOpGradients } from "./elementwise.ts";

/**
 * The dtype in which the gradient of an operand is stored: a weight that was cast from float32 gets its
 * gradient in float32, straight from the accumulators, without rounding on the way.
 */
function gradientDType(operand: Value): DType {
  const { node } = operand;
  return node.op === "cast" ? dtypeOf(node.inputs[0]!) : dtypeOf(operand);
}

/** Gradients of the matrix products. */
export const matrixGradients: {
  readonly matmul: GradientRule<"matmul">;
  readonly linear_cross_entropy: GradientRule<"linear_cross_entropy">;
} = {
  matmul: (node, [g]) => {
    if (g === undefined) return [];
    const { transposeA, transposeB, activation, bias, residual } = node.attributes;
    if (activation !== "none") {
      // Epilogues with activations are made by a pass after differentiation; a user may still write one.
      return differentiateEpilogue(node, g);
    }
    const [a, b, ...extra] = node.inputs as [Value, Value, ...Value[]];
    // A shared b (no batch axes) sees all leading axes of a as one long row axis.
    const shared = shapeOf(b).length === 2;
    if (shared && shapeOf(a).length > 2 && transposeA) return sharedTransposed(node, g);
    const rows = shared ? asRows(g) : g;
    const aRows = shared ? asRows(a) : a;
    const dA = transposeA
      ? matmul(b, rows, { transposeA: transposeB, transposeB: true, dtype: gradientDType(a) })
      : matmul(rows, b, { transposeB: !transposeB, dtype: gradientDType(a) });
    const dB = transposeB
      ? matmul(rows, aRows, { transposeA: true, transposeB: transposeA, dtype: gradientDType(b) })
      : matmul(aRows, rows, { transposeA: !transposeA, dtype: gradientDType(b) });
    const results: (Value | undefined)[] = [reshape(dA, shapeOf(a)), dB];
    if (bias) results.push(cast(sumTo(cast(g, "f32"), shapeOf(extra[0]!)), dtypeOf(extra[0]!)));
    if (residual) results.push(cast(g, dtypeOf(extra.at(-1)!)));
    return results;
  },
  linear_cross_entropy: (node, [g]) => {
    if (g === undefined) return [];
    const [hidden, weight, targets] = node.inputs as [Value, Value, Value];
    const { node: gradient } = apply("linear_cross_entropy_gradient", [g, hidden, weight, targets], {});
    const dWeight = cast({ node: gradient, index: 2 }, gradientDType(weight));
    return [{ node: gradient, index: 1 }, dWeight, undefined];
  },
};

/** a^T b with leading axes on a alone: give b the leading axes, then differentiate the batched product. */
function sharedTransposed(node: Parameters<GradientRule<"matmul">>[0], g: Value): (Value | undefined)[] {
  const [a, b, ...extra] = node.inputs as [Value, Value, ...Value[]];
  const { transposeB, bias, residual } = node.attributes;
  const wide = broadcast(b, [...shapeOf(a).slice(0, -2), ...shapeOf(b)]);
  const dA = matmul(wide, g, { transposeA: transposeB, transposeB: true, dtype: gradientDType(a) });
  const dWide = transposeB
    ? matmul(g, a, { transposeA: true, transposeB: true, dtype: dtypeOf(b) })
    : matmul(a, g, { dtype: dtypeOf(b) });
  const results: (Value | undefined)[] = [dA, sumTo(dWide, shapeOf(b))];
  if (bias) results.push(cast(sumTo(cast(g, "f32"), shapeOf(extra[0]!)), dtypeOf(extra[0]!)));
  if (residual) results.push(cast(g, dtypeOf(extra.at(-1)!)));
  return results;
}

/** Differentiates act(a b + bias) + residual by writing it out in plain ops. */
function differentiateEpilogue(node: Parameters<GradientRule<"matmul">>[0], g: Value): (Value | undefined)[] {
  const { activation, bias, residual } = node.attributes;
  if (activation === "none") return [];
  const inputs = residual ? node.inputs.slice(0, -1) : node.inputs;
  const before = apply("matmul", inputs, {
    ...node.attributes,
    activation: "none",
    bias,
    residual: false,
  });
  const activated = unary(activation, before);
  const [dBefore] = elementwiseRule(activated, g);
  const results = dBefore === undefined ? [] : [...matrixGradients.matmul(before.node, [dBefore])];
  if (residual) results.push(cast(g, dtypeOf(node.inputs.at(-1)!)));
  return results;
}

function elementwiseRule(activated: Value, g: Value): readonly (Value | undefined)[] {
  const rule = elementwiseOpGradients.elementwise;
  return rule(activated.node as Parameters<typeof rule>[0], [g]);
}
