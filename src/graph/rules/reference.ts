import { decode } from "../../base/dtype.ts";
import { InternalError } from "../../base/errors.ts";
import { boundShape, elementCount } from "../../base/shape.ts";
import { type Node, shapeOf, type Value } from "../graph.ts";
import type { OpAttributes, OpName } from "../ops.ts";
import { attentionReferences } from "./references/attention.ts";
import { elementwiseReferences } from "./references/elementwise.ts";
import { matrixReferences } from "./references/matrix.ts";
import { movementReferences } from "./references/movement.ts";
import { optimizerReferences } from "./references/optimizer.ts";
import { rowReferences } from "./references/rows.ts";
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
  ...rowReferences,
  ...attentionReferences,
  ...optimizerReferences,
};

/** The values of a node whose operands are all constants or fills of fixed shape. */
export function evaluateNode(node: Node, inputs: readonly Value[]): Float64Array[] {
  const operands = inputs.map((input): ReferenceTensor => {
    const shape = boundShape(shapeOf(input));
    const source = input.node;
    if (source.op === "fill") {
      const { value } = (source as Node<"fill">).attributes;
      return { shape, values: new Float64Array(elementCount(shape)).fill(value) };
    }
    if (source.op !== "constant") throw new InternalError(`${source.op} is not a constant`);
    const { data, dtype } = (source as Node<"constant">).attributes;
    return { shape, values: decode(dtype, data) };
  });
  const rule = referenceRules[node.op] as ReferenceRule<OpName>;
  return rule(
    operands,
    node.attributes,
    node.outputs.map((type) => boundShape(type.shape)),
  );
}
