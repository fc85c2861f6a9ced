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
  requireStatistic,
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
  requireFloat(weight, "weight", fail);
  requireSame(weight.shape, [lastDimension(x.shape, fail)], "the weight and the last dimension", fail);
  return { shape: x.shape.slice(0, -1), dtype: "f32" };
}

function checkGate(gate: TensorType, up: TensorType, fail: Fail): void {
  requireFloat(gate, "gate", fail);
  requireSame(gate.shape, up.shape, "gate and up", fail);
  if (gate.dtype !== up.dtype) fail(`gate and up must have the same dtype: ${gate.dtype} and ${up.dtype}`);
}

function checkGradient(gradient: TensorType, value: TensorType, name: string, fail: Fail): void {
  requireFloat(gradient, `the gradient of ${name}`, fail);
  requireSame(gradient.shape, value.shape, `${name} and its gradient`, fail);
}

/** Checks logits `[rows, classes]` and targets `[rows]`; gives the type of a number a row. */
function checkLogits(logits: TensorType, targets: TensorType, fail: Fail): TensorType {
  requireRank(logits, 2, "logits", fail);
  requireFloat(logits, "logits", fail);
  requireRank(targets, 1, "targets", fail);
  requireInteger(targets, "targets", fail);
  requireEqual(logits.shape[0]!, targets.shape[0]!, "the rows of logits and targets", fail);
  return { shape: targets.shape, dtype: "f32" };
}

/** Shapes of the ops that work on rows. */
export const rowShapes: { readonly [Op in RowOp]: ShapeRule<Op> } = {
  rms_norm: (inputs, _attributes, fail) => {
    const [x, weight] = operands(inputs, 2, fail);
    return [x!, checkNorm(x!, weight!, fail)];
  },
  rms_norm_gradient: (inputs, _attributes, fail) => {
    const [dY, x, weight, inverse] = operands(inputs, 4, fail);
    checkGradient(dY!, x!, "x", fail);
    requireStatistic(inverse!, checkNorm(x!, weight!, fail).shape, "inverse_rms", fail);
    return [x!, { shape: weight!.shape, dtype: "f32" }];
  },
  layer_norm: (inputs, { bias }, fail) => {
    const [x, weight, offset] = operands(inputs, bias ? 3 : 2, fail);
    const statistic = checkNorm(x!, weight!, fail);
    if (offset !== undefined) {
      requireFloat(offset, "bias", fail);
      requireSame(offset.shape, weight!.shape, "the bias and the weight", fail);
    }
    return [x!, statistic, statistic];
  },
  layer_norm_gradient: (inputs, _attributes, fail) => {
    const [dY, x, weight, mean, inverse] = operands(inputs, 5, fail);
    checkGradient(dY!, x!, "x", fail);
    const { shape: rows } = checkNorm(x!, weight!, fail);
    requireStatistic(mean!, rows, "mean", fail);
    requireStatistic(inverse!, rows, "inverse_deviation", fail);
    const parameter: TensorType = { shape: weight!.shape, dtype: "f32" };
    return [x!, parameter, parameter];
  },
  rope: (inputs, _attributes, fail) => {
    const [x, positions, frequencies] = operands(inputs, 3, fail);
    requireRank(x!, 3, "x", fail);
    requireFloat(x!, "x", fail);
    requireRank(positions!, 1, "positions", fail);
    requireInteger(positions!, "positions", fail);
    requireRank(frequencies!, 1, "frequencies", fail);
    requireFloat(frequencies!, "frequencies", fail);
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
    requireFloat(y!, "y", fail);
    checkGradient(dY!, y!, "y", fail);
    return [y!];
  },
  cross_entropy: (inputs, _attributes, fail) => {
    const [logits, targets] = operands(inputs, 2, fail);
    const perRow = checkLogits(logits!, targets!, fail);
    return [perRow, perRow];
  },
  cross_entropy_gradient: (inputs, _attributes, fail) => {
    const [dLosses, logits, targets, logsumexp] = operands(inputs, 4, fail);
    const { shape: rows } = checkLogits(logits!, targets!, fail);
    requireFloat(dLosses!, "the gradient of the losses", fail);
    requireSame(dLosses!.shape, rows, "the gradient of the losses and the targets", fail);
    requireStatistic(logsumexp!, rows, "logsumexp", fail);
    return [logits!];
  },
  embedding: (inputs, { dtype }, fail) => {
    const [weight, ids] = operands(inputs, 2, fail);
    requireRank(weight!, 2, "weight", fail);
    requireFloat(weight!, "weight", fail);
    requireInteger(ids!, "ids", fail);
    return [{ shape: [...ids!.shape, weight!.shape[1]!], dtype }];
  },
  embedding_gradient: (inputs, { vocabulary }, fail) => {
    const [dY, ids] = operands(inputs, 2, fail);
    requireFloat(dY!, "the gradient of the result", fail);
    requireInteger(ids!, "ids", fail);
    requireSame(dY!.shape.slice(0, -1), ids!.shape, "the rows and the ids", fail);
    return [{ shape: [vocabulary, lastDimension(dY!.shape, fail)], dtype: "f32" }];
  },
};
