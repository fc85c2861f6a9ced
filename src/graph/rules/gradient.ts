import type { Node, Value } from "../graph.ts";
import type { OpName } from "../ops.ts";
import { elementwiseOpGradients } from "./gradients/elementwise.ts";
import { matrixGradients } from "./gradients/matrix.ts";
import { movementGradients } from "./gradients/movement.ts";
import { rowGradients } from "./gradients/rows.ts";

/**
 * The gradients of a loss with respect to a node's inputs, given those with respect to its outputs
 * (undefined: the output does not reach the loss). Undefined for an input means that no gradient flows
 * there (ids, positions). Built from ops, so that gradients can be differentiated again.
 */
export type GradientRule<Op extends OpName> = (
  node: Node<Op>,
  gradients: readonly (Value | undefined)[],
) => readonly (Value | undefined)[];

/** An op that has no derivative, with the reason that the error gives. */
export interface NotDifferentiable {
  readonly reason: string;
}

/** No gradient passes: the op is constant, or its result does not vary with its inputs. */
const constantOp = (node: Node): readonly undefined[] => node.inputs.map(() => undefined);
const lowered: NotDifferentiable = { reason: "it is made by passes that run after differentiation" };
const gradientOp: NotDifferentiable = { reason: "it is itself a gradient whose derivative is not written" };
const serving: NotDifferentiable = { reason: "it serves generation; use `attention` in training" };
const choice: NotDifferentiable = { reason: "it chooses tokens; use `cross_entropy` in training" };
const quantized: NotDifferentiable = { reason: "quantized weights do not train" };
const update: NotDifferentiable = { reason: "it updates state" };

/** One answer an op; a missing op does not compile. */
export const gradientRules: { readonly [Op in OpName]: GradientRule<Op> | NotDifferentiable } = {
  leaf: constantOp,
  constant: constantOp,
  fill: constantOp,
  iota: constantOp,
  random: constantOp,
  argmax: constantOp,
  ...elementwiseOpGradients,
  ...movementGradients,
  ...matrixGradients,
  ...rowGradients,
  map: lowered,
  pack_matrix: lowered,
  matmul_packed: lowered,
  quantize_rows: quantized,
  matmul_quantized: quantized,
  repack_blocks: quantized,
  quantize_matrix: quantized,
  embedding_quantized: quantized,
  dequantize_matrix: quantized,
  quantize_blocks: quantized,
  dequantize_blocks: quantized,
  linear_cross_entropy_gradient: gradientOp,
  rms_norm_gradient: gradientOp,
  layer_norm_gradient: gradientOp,
  swiglu_gradient: gradientOp,
  softmax_gradient: gradientOp,
  cross_entropy_gradient: gradientOp,
  attention_gradient: gradientOp,
  attention_block: lowered,
  attention_block_gradient: lowered,
  attention_delta: lowered,
  cache_write: serving,
  cache_write_quantized: serving,
  cache_copy: serving,
  paged_attention: serving,
  sample: choice,
  adamw: update,
  adam: update,
  sgd: update,
  lion: update,
  adagrad: update,
  sum_of_squares: update,
  all_reduce: lowered,
  reduce_scatter: lowered,
  all_gather: lowered,
  all_to_all: lowered,
  permute: lowered,
};
