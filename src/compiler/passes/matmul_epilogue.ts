import { isFloat } from "../../base/dtype.ts";
import { sameShape } from "../../base/shape.ts";
import {
  type AnyNode,
  apply,
  dtypeOf,
  type Graph,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import type { Activation } from "../../graph/ops.ts";
import { rewrite, type Uses, usesOf } from "./rewrite.ts";

const activationOf: Readonly<Record<string, Activation>> = {
  relu: "relu",
  gelu: "gelu",
  gelu_tanh: "gelu_tanh",
  silu: "silu",
};

/**
 * Moves bias, activation and residual into the product before them, where nothing else reads the plain
 * product: they are then applied to the float32 accumulators before the one rounding. Runs before the
 * recomputation pass, so that a block and its recomputed copy are fused alike.
 */
export function fuseMatmulEpilogues(graph: Graph): Graph {
  const uses = usesOf(graph);
  return rewrite(graph, (node, inputs) => {
    if (node.op !== "elementwise") return undefined;
    const activation = activationOf[node.attributes.operation];
    if (activation !== undefined) return fuseActivation(node, inputs, uses, activation);
    return node.attributes.operation === "add" ? fuseAddition(node, inputs, uses) : undefined;
  });
}

function plainProduct(before: Value, now: Value, uses: Uses): Node<"matmul"> | undefined {
  if (now.node.op !== "matmul" || uses.count(before) !== 1) return undefined;
  return now.node as Node<"matmul">;
}

function fuseActivation(
  node: AnyNode,
  inputs: readonly Value[],
  uses: Uses,
  activation: Activation,
): Value[] | undefined {
  const product = plainProduct(node.inputs[0]!, inputs[0]!, uses);
  if (product === undefined || product.attributes.activation !== "none" || product.attributes.residual)
    return undefined;
  return [apply("matmul", product.inputs, { ...product.attributes, activation }, node)];
}

function fuseAddition(node: AnyNode, inputs: readonly Value[], uses: Uses): Value[] | undefined {
  const type = node.outputs[0]!;
  for (const [mine, other] of [
    [0, 1],
    [1, 0],
  ] as const) {
    const product = plainProduct(node.inputs[mine]!, inputs[mine]!, uses);
    const operand = inputs[other]!;
    if (product === undefined || !isFloat(dtypeOf(operand))) continue;
    if (!sameShape(product.outputs[0]!.shape, type.shape)) continue;
    const attributes = { ...product.attributes, dtype: type.dtype };
    const { bias, residual, activation } = product.attributes;
    const shape = shapeOf(operand);
    if (
      !bias &&
      !residual &&
      activation === "none" &&
      shape.length === 1 &&
      sameShape(shape, type.shape.slice(-1))
    ) {
      return [apply("matmul", [...product.inputs, operand], { ...attributes, bias: true }, node)];
    }
    if (!residual && sameShape(shape, type.shape)) {
      return [apply("matmul", [...product.inputs, operand], { ...attributes, residual: true }, node)];
    }
  }
  return undefined;
}
