import type { CostRule } from "../cost.ts";
import { elements, moving, perInputElement, totalBytes } from "./common.ts";

type QuantizedOp =
  | "quantize_rows"
  | "matmul_quantized"
  | "repack_blocks"
  | "quantize_matrix"
  | "embedding_quantized"
  | "dequantize_matrix";

/** Step sizes that are tried for 4 bits (native/kernels/quantized/quantize.h), at eight operations an element. */
const searchOperations = 20 * 8;

/** Costs of the ops on quantized weights: operations on integers count like others. */
export const quantizedCosts: { readonly [Op in QuantizedOp]: CostRule<Op> } = {
  // Magnitude, comparison, multiplication, rounding, sum.
  quantize_rows: perInputElement(5),
  matmul_quantized: (inputs, outputs, { inner, activation, bias, residual }) => {
    const epilogue = Number(activation !== "none") + Number(bias) + Number(residual);
    const results = outputs.reduce((total, output) => total + elements(output), 0);
    return moving(inputs, outputs, results * (2 * inner + epilogue));
  },
  repack_blocks: (inputs, outputs) => moving(inputs, outputs, 0),
  quantize_matrix: (inputs, outputs, { format }) =>
    moving(
      inputs,
      outputs,
      elements(inputs[0]) * (format.bits === 4 || format.minimum ? searchOperations : 4),
    ),
  // A scale and an offset an element; only the rows that are asked for are read.
  embedding_quantized: ([, ids], [y], { format }) => ({
    flops: 2 * elements(y),
    bytes: totalBytes(ids!, y!) + (elements(y) * format.bits) / 8,
  }),
  dequantize_matrix: (inputs, outputs) => moving(inputs, outputs, 2 * elements(outputs[0])),
};
