import { bytesPerElement, type DType } from "../../base/dtype.ts";
import { boundShape, elementCount, resolveShape, type SymbolValues } from "../../base/shape.ts";
import { type Graph, type Node, type TensorType, typeOf } from "../graph.ts";
import type { OpAttributes, OpName } from "../ops.ts";
import { attentionCosts } from "./costs/attention.ts";
import { blockCosts } from "./costs/blocks.ts";
import { collectiveCosts } from "./costs/collectives.ts";
import { matrixCosts } from "./costs/matrix.ts";
import { movementCosts } from "./costs/movement.ts";
import { quantizedCosts } from "./costs/quantized.ts";
import { rowCosts } from "./costs/rows.ts";
import { samplingCosts } from "./costs/sampling.ts";

/** Shape and dtype of a value in one run. */
export interface ConcreteType {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** What running an op takes at the least. */
export interface Cost {
  /** Arithmetic operations: a multiply-add counts 2, an elementwise operation (also `exp`) 1. */
  readonly flops: number;
  /** Bytes read and written once each, as if every operand came from memory. */
  readonly bytes: number;
}

/** The cost of an op from the shapes of one run. Views (leaves, constants, reshape) are free. */
export type CostRule<Op extends OpName> = (
  inputs: readonly ConcreteType[],
  outputs: readonly ConcreteType[],
  attributes: OpAttributes[Op],
) => Cost;

/** One answer an op; a missing op does not compile. */
export const costRules: { readonly [Op in OpName]: CostRule<Op> } = {
  ...movementCosts,
  ...matrixCosts,
  ...quantizedCosts,
  ...blockCosts,
  ...rowCosts,
  ...attentionCosts,
  ...samplingCosts,
  ...collectiveCosts,
};

/** Bytes of a value in one run. */
export function bytesOf(type: ConcreteType): number {
  return elementCount(type.shape) * bytesPerElement(type.dtype);
}

/**
 * The cost of a node with its symbols at `symbols`, or at their bounds.
 * @throws ShapeError where `symbols` lacks one of the node's or puts it above its bound.
 */
export function costOf(node: Node, symbols?: SymbolValues): Cost {
  const concrete = ({ shape, dtype }: TensorType): ConcreteType => ({
    shape: symbols === undefined ? boundShape(shape) : resolveShape(shape, symbols),
    dtype,
  });
  const rule = costRules[node.op] as CostRule<OpName>;
  return rule(
    node.inputs.map((input) => concrete(typeOf(input))),
    node.outputs.map(concrete),
    node.attributes,
  );
}

/** The cost of all nodes of a graph together. */
export function graphCost(graph: Graph, symbols?: SymbolValues): Cost {
  let flops = 0;
  let bytes = 0;
  for (const node of graph.nodes) {
    const cost = costOf(node, symbols);
    flops += cost.flops;
    bytes += cost.bytes;
  }
  return { flops, bytes };
}
