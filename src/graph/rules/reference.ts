import { InternalError } from "../../base/errors.ts";
import type { AnyNode, TensorType, Value } from "../graph.ts";
import type { OpAttributes, OpName } from "../ops.ts";
import { attentionReferences } from "./references/attention.ts";
import { blockReferences } from "./references/blocks.ts";
import { collectiveReferences } from "./references/collectives.ts";
import { truncateToIntegers } from "./references/common.ts";
import { elementwiseReferences } from "./references/elementwise.ts";
import { matrixReferences } from "./references/matrix.ts";
import { movementReferences } from "./references/movement.ts";
import { optimizerReferences } from "./references/optimizer.ts";
import { quantizedReferences } from "./references/quantized.ts";
import { rowReferences } from "./references/rows.ts";
import { samplingReferences } from "./references/sampling.ts";
import { sourceReferences } from "./references/sources.ts";

/** A tensor of the reference semantics: float64 values, row-major, whatever the dtype they are stored in. */
export interface ReferenceTensor {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

/**
 * What an op means, in float64: the values of its results, in order, for operands and the shapes that its
 * results have in this run. Rules never write to their operands. They round nothing to a storage dtype; only
 * a dtype of integers in the attributes truncates.
 * @throws ShapeError where ids, targets, slots or offsets point outside of what they index.
 */
export type ReferenceRule<Op extends OpName> = (
  inputs: readonly ReferenceTensor[],
  attributes: OpAttributes[Op],
  outputShapes: readonly (readonly number[])[],
) => Float64Array[];

/** One meaning an op; a missing op does not compile. */
export const referenceRules: { readonly [Op in OpName]: ReferenceRule<Op> } = {
  ...sourceReferences,
  ...elementwiseReferences,
  ...movementReferences,
  ...matrixReferences,
  ...quantizedReferences,
  ...blockReferences,
  ...rowReferences,
  ...attentionReferences,
  ...samplingReferences,
  ...optimizerReferences,
  ...collectiveReferences,
};

/**
 * The results of a node on operands that are constants or fills of fixed shapes, unrounded: what the folding of
 * constants computes. `inputs` stand in for the node's own operands.
 * @throws InternalError where an operand is not constant, or a shape is not fixed.
 */
export function evaluateNode(node: AnyNode, inputs: readonly Value[]): Float64Array[] {
  const operands = inputs.map((input): ReferenceTensor => {
    if (input.node.op !== "constant" && input.node.op !== "fill") {
      throw new InternalError(`${input.node.op} is not a constant operand of ${node.op}`);
    }
    const shapes = input.node.outputs.map(fixedShape);
    return { shape: shapes[0]!, values: applyRule(input.node as AnyNode, [], shapes)[0]! };
  });
  return applyRule(node, operands, node.outputs.map(fixedShape));
}

/** Applies the rule of a node's op. */
export function applyRule(
  node: AnyNode,
  inputs: readonly ReferenceTensor[],
  outputShapes: readonly (readonly number[])[],
): Float64Array[] {
  const rule = referenceRules[node.op] as ReferenceRule<OpName>;
  const results = rule(inputs, node.attributes, outputShapes);
  // Arithmetic on integers gives integers; the other rules see to it themselves.
  if (node.op !== "elementwise") return results;
  return results.map((values) => truncateToIntegers(values, node.outputs[0]!.dtype));
}

function fixedShape({ shape }: TensorType): number[] {
  return shape.map((dimension) => {
    if (typeof dimension === "number") return dimension;
    throw new InternalError(`dimension ${dimension.symbol} of a constant is not fixed`);
  });
}
