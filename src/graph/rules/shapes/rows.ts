import type { TensorType } from "../../graph.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import {
  lastDimension,
  operands,
  requireEqual,
  requireFloat,
  requireInteger,
  requireRank,
  requireSame,
} from "./common.ts";

type RowOp =
  | "rms_norm"
  | "rms_norm_gradient"
  | "layer_norm"
  | "layer_norm_gradient"
  | "rope"
  | "swiglu"
  | "swiglu_gradient"
  | "softmax"
  | "softmax_gradient"
  | "cross_entropy"
  | "cross_entropy_gradient"
  | "embedding"
  | "embedding_gradient";

function checkNorm(x: TensorType, weight: TensorType, fail: Fail): TensorType {
  requireFloat(x, "x", fail);
  requireSame(weight.shape, [lastDimension(x.shape, fail)], "the weight and the last dimension", fail);
  return { shape: x.shape.slice(0, -1), dtype: "f32" };
}

function checkGate(gate: TensorType, up: TensorType, fail: Fail): void {
  requireFloat(gate, "gate", fail);
  requireSame(gate.shape, up.shape, "gate and up", fail);
  if (gate.dtype !== up.dtype) fail(`gate and up must have the same dtype: ${gate.dtype} and ${up.dtype}`);
}

/** Shapes of the ops that work on rows. */
export const rowShapes: { readonly [Op in RowOp]: ShapeRule<Op> } = {
  rms_norm: (inputs, _attributes, fail) => {
    const [x, weight] = operands(inputs, 2, fail);
    return [x!, checkNorm(x!, weight!, fail)];
  },
  rms_norm_gradient: (inputs, _attributes, fail) => {
    const [dY, x, weight, inverse] = operands(inputs, 4, fail);
    requireSame(dY!.shape, x!.shape, "x and its gradient", fail);
    requireSame(inverse!.shape, checkNorm(x!, weight!, fail).shape, "the statistics and the rows", fail);
    return [x!, { shape: weight!.shape, dtype: "f32" }];
  },
  layer_norm: (inputs, { bias }, fail) => {
    const [x, weight] = operands(inputs, bias ? 3 : 2, fail);
    const statistic = checkNorm(x!, weight!, fail);
    return [x!, statistic, statistic];
  },
  layer_norm_gradient: (inputs, _attributes, fail) => {
    const [dY, x, weight] = operands(inputs, 5, fail);
    requireSame(dY!.shape, x!.shape, "x and its gradient", fail);
    checkNorm(x!, weight!, fail);
    const parameter: TensorType = { shape: weight!.shape, dtype: "f32" };
    return [x!, parameter, parameter];
  },
  rope: (inputs, _attributes, fail) => {
    const [x, positions, frequencies] = operands(inputs, 3, fail);
    requireFloat(x!, "x", fail);
    requireRank(x!, 3, "x", fail);
    requireRank(positions!, 1, "positions", fail);
    requireInteger(positions!, "positions", fail);
    requireRank(frequencies!, 1, "frequencies", fail);
    requireEqual(x!.shape[0]!, positions!.shape[0]!, "the tokens of x and positions", fail);
    const size = x!.shape[2];
    const pairs = frequencies!.shape[0];
    if (typeof size === "number" && typeof pairs === "number" && pairs * 2 > size) {
      fail(`${pairs} frequencies rotate ${pairs * 2} of only ${size} elements`);
    }
    return [x!];
  },
  swiglu: (inputs, _attributes, fail) => {
    const [gate, up] = operands(inputs, 2, fail);
    checkGate(gate!, up!, fail);
    return [gate!];
  },
  swiglu_gradient: (inputs, _attributes, fail) => {
    const [dY, gate, up] = operands(inputs, 3, fail);
    checkGate(gate!, up!, fail);
    requireSame(dY!.shape, gate!.shape, "gate and the gradient", fail);
    if (dY!.dtype !== gate!.dtype) fail(`the gradient must be of gate's dtype, got ${dY!.dtype}`);
    return [gate!, up!];
  },
  softmax: (inputs, _attributes, fail) => {
    const [x] = operands(inputs, 1, fail);
    requireFloat(x!, "x", fail);
    lastDimension(x!.shape, fail);
    return [x!];
  },
  softmax_gradient: (inputs, _attributes, fail) => {
    const [dY, y] = operands(inputs, 2, fail);
    requireSame(dY!.shape, y!.shape, "y and its gradient", fail);
    return [y!];
  },
  cross_entropy: (inputs, _attributes, fail) => {
    const [logits, targets] = operands(inputs, 2, fail);
    requireRank(logits!, 2, "logits", fail);
    requireInteger(targets!, "targets", fail);
    requireSame(targets!.shape, logits!.shape.slice(0, 1), "the rows of logits and targets", fail);
    const perRow: TensorType = { shape: targets!.shape, dtype: "f32" };
    return [perRow, perRow];
  },
  cross_entropy_gradient: (inputs, _attributes, fail) => {
    const [dLosses, logits, targets] = operands(inputs, 4, fail);
    requireSame(dLosses!.shape, targets!.shape, "losses and targets", fail);
    return [logits!];
  },
  embedding: (inputs, { dtype }, fail) => {
    const [weight, ids] = operands(inputs, 2, fail);
    requireRank(weight!, 2, "weight", fail);
    requireInteger(ids!, "ids", fail);
    return [{ shape: [...ids!.shape, weight!.shape[1]!], dtype }];
  },
  embedding_gradient: (inputs, { vocabulary }, fail) => {
    const [dY, ids] = operands(inputs, 2, fail);
    requireSame(dY!.shape.slice(0, -1), ids!.shape, "the rows and the ids", fail);
    return [{ shape: [vocabulary, lastDimension(dY!.shape, fail)], dtype: "f32" }];
  },
};
