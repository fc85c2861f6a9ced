import type { TensorType } from "../../graph.ts";
import type { CollectiveOp, OpName } from "../../ops.ts";
import type { Label, OpSharding, ShardingRule } from "../sharding.ts";
import { labelsOf, leadingLabels, whole, wholes } from "./common.ts";

type OtherOp =
  | CollectiveOp
  | Extract<
      OpName,
      | "leaf"
      | "constant"
      | "fill"
      | "iota"
      | "random"
      | "quantize_rows"
      | "matmul_quantized"
      | "repack_blocks"
      | "quantize_matrix"
      | "embedding_quantized"
      | "dequantize_matrix"
      | "quantize_blocks"
      | "dequantize_blocks"
      | "sample"
      | "adamw"
      | "adam"
      | "sgd"
      | "lion"
      | "adagrad"
      | "sum_of_squares"
    >;

/** Sources, quantized products, sampling, optimizers, and collectives, which are the result of sharding. */
export const otherShardings: { readonly [Op in OtherOp]: ShardingRule<Op> } = {
  leaf: (_inputs, outputs) => ({ inputs: [], outputs: outputs.map((type) => labelsOf(type)), linear: [] }),
  // Its data are part of the program: a rank takes its part of the result.
  constant: whole,
  fill: (_inputs, outputs) => ({ inputs: [], outputs: outputs.map((type) => labelsOf(type)), linear: [] }),
  iota: (_inputs, [y], { axis }) => ({ inputs: [], outputs: [labelsOf(y).with(axis, null)], linear: [] }),
  // The numbers are counted over the whole shape.
  random: whole,

  quantize_rows: (inputs, outputs) => {
    const rows = leadingLabels(inputs[0]);
    return { inputs: [rows], outputs: outputs.map(() => rows), linear: [] };
  },
  matmul_quantized: (inputs, outputs, { weights, bias, residual }) => {
    const rows = leadingLabels(inputs[0]);
    const operands = inputs.map((type, index): Label[] => {
      const after = index - 3 - weights.length - (bias ? weights.length : 0);
      return index < 3 || (residual && after === 0) ? rows : wholes([type])[0]!;
    });
    return { inputs: operands, outputs: outputs.map(() => rows), linear: [] };
  },
  repack_blocks: whole,
  quantize_matrix: whole,
  embedding_quantized: ([, ids]) => {
    const rows = labelsOf(ids);
    return { inputs: [[null], rows], outputs: [[...rows, null]], linear: [] };
  },
  dequantize_matrix: whole,
  quantize_blocks: whole,
  dequantize_blocks: whole,
  sample: whole,

  adamw: update,
  adam: update,
  sgd: update,
  lion: update,
  adagrad: update,
  sum_of_squares: (inputs) => ({
    inputs: inputs.map((type) => labelsOf(type)),
    outputs: [[null]],
    linear: [],
  }),

  all_reduce: whole,
  reduce_scatter: whole,
  all_gather: whole,
  all_to_all: whole,
  permute: whole,
};

/** Parameters, gradients and states are updated element by element; the hyperparameters, last, are for all. */
function update(inputs: readonly TensorType[], outputs: readonly TensorType[]): OpSharding {
  const labels = labelsOf(inputs[0]);
  const operands = inputs.map((type, index) => (index === inputs.length - 1 ? wholes([type])[0]! : labels));
  return { inputs: operands, outputs: outputs.map(() => labels), linear: [] };
}
