import type { OpName } from "../../ops.ts";
import type { CostRule } from "../cost.ts";
import { elements, perInputElement, totalBytes } from "./common.ts";

type RowOp = Extract<
  OpName,
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
  | "embedding_gradient"
  | "adamw"
  | "adam"
  | "sgd"
  | "lion"
  | "adagrad"
  | "sum_of_squares"
>;

/** Costs of the ops on rows and of the optimizers: the operations that their formulas write an element. */
export const rowCosts: { readonly [Op in RowOp]: CostRule<Op> } = {
  rms_norm: perInputElement(4),
  rms_norm_gradient: perInputElement(9),
  layer_norm: perInputElement(7),
  layer_norm_gradient: perInputElement(13),
  rope: perInputElement(3),
  swiglu: perInputElement(5),
  swiglu_gradient: perInputElement(11),
  softmax: perInputElement(4),
  softmax_gradient: perInputElement(4),
  cross_entropy: perInputElement(3),
  cross_entropy_gradient: (inputs, outputs) => ({
    flops: 3 * elements(inputs[1]),
    bytes: totalBytes(...inputs, ...outputs),
  }),
  // Only the rows that are looked up are read.
  embedding: ([weight, ids], [y]) => ({
    flops: 0,
    bytes: totalBytes({ shape: y!.shape, dtype: weight!.dtype }, ids!, y!),
  }),
  embedding_gradient: perInputElement(1),
  adamw: perInputElement(16),
  adam: perInputElement(16),
  sgd: perInputElement(10),
  lion: perInputElement(12),
  adagrad: perInputElement(9),
  sum_of_squares: perInputElement(2),
};
