import type { Activation } from "../../ops.ts";
import type { ConcreteType, Cost, CostRule } from "../cost.ts";
import { elements, moving } from "./common.ts";

type MatrixOp =
  | "matmul"
  | "pack_matrix"
  | "matmul_packed"
  | "linear_cross_entropy"
  | "linear_cross_entropy_gradient";

interface Epilogue {
  readonly activation: Activation;
  readonly bias: boolean;
  readonly residual: boolean;
}

function productCost(
  inputs: readonly ConcreteType[],
  outputs: readonly ConcreteType[],
  inner: number,
  { activation, bias, residual }: Epilogue,
): Cost {
  const epilogue = Number(activation !== "none") + Number(bias) + Number(residual);
  return moving(inputs, outputs, elements(outputs[0]) * (2 * inner + epilogue));
}

/** Products [T, K] x [K, V], and an exponential and a sum for each of the T V logits. */
function lossCost(
  inputs: readonly ConcreteType[],
  outputs: readonly ConcreteType[],
  hidden: ConcreteType,
  weight: ConcreteType,
  products: number,
): Cost {
  const logits = hidden.shape[0]! * weight.shape[0]!;
  return moving(inputs, outputs, logits * (2 * products * hidden.shape[1]! + 2 * products));
}

/** Costs of the matrix products: 2 M N K, and one operation an element for each part of the epilogue. */
export const matrixCosts: { readonly [Op in MatrixOp]: CostRule<Op> } = {
  matmul: (inputs, outputs, attributes) =>
    productCost(inputs, outputs, inputs[0]!.shape.at(attributes.transposeA ? -2 : -1)!, attributes),
  pack_matrix: (inputs, outputs) => moving(inputs, outputs, 0),
  matmul_packed: (inputs, outputs, attributes) =>
    productCost(inputs, outputs, inputs[0]!.shape.at(-1)!, attributes),
  linear_cross_entropy: (inputs, outputs) => lossCost(inputs, outputs, inputs[0]!, inputs[1]!, 1),
  // The logits, the gradient of hidden and that of the weight.
  linear_cross_entropy_gradient: (inputs, outputs) => lossCost(inputs, outputs, inputs[1]!, inputs[2]!, 3),
};
