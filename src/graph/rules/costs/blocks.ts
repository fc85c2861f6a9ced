import type { CostRule } from "../cost.ts";
import { elements, moving, perInputElement } from "./common.ts";

type BlockOp = "quantize_blocks" | "dequantize_blocks";

/** Costs of the ops that make numbers smaller to send them. */
export const blockCosts: { readonly [Op in BlockOp]: CostRule<Op> } = {
  // Magnitude, comparison, multiplication, rounding.
  quantize_blocks: perInputElement(4),
  dequantize_blocks: (inputs, outputs) => moving(inputs, outputs, 2 * elements(outputs[0])),
};
