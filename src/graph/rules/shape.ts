import { ShapeError } from "../../base/errors.ts";
import { formatShape } from "../../base/shape.ts";
import type { TensorType } from "../graph.ts";
import type { OpAttributes, OpName } from "../ops.ts";
import { attentionShapes } from "./shapes/attention.ts";
import { blockShapes } from "./shapes/blocks.ts";
import { collectiveShapes } from "./shapes/collectives.ts";
import { elementwiseShapes } from "./shapes/elementwise.ts";
import { matrixShapes } from "./shapes/matrix.ts";
import { movementShapes } from "./shapes/movement.ts";
import { optimizerShapes } from "./shapes/optimizer.ts";
import { quantizedShapes } from "./shapes/quantized.ts";
import { rowShapes } from "./shapes/rows.ts";
import { samplingShapes } from "./shapes/sampling.ts";
import { sourceShapes } from "./shapes/sources.ts";

/** Raises a ShapeError for the op at hand: `fail("the inner sizes differ", "…")`. */
export type Fail = (problem: string, expected?: string) => never;

/**
 * Which types an op gives for operands of these types. The rule checks number, dtypes and shapes of the
 * operands and calls `fail` where they do not fit.
 */
export type ShapeRule<Op extends OpName> = (
  inputs: readonly TensorType[],
  attributes: OpAttributes[Op],
  fail: Fail,
) => readonly TensorType[];

/** One rule an op; a missing op does not compile. */
const shapeRules: { readonly [Op in OpName]: ShapeRule<Op> } = {
  ...sourceShapes,
  ...collectiveShapes,
  ...elementwiseShapes,
  ...movementShapes,
  ...matrixShapes,
  ...quantizedShapes,
  ...blockShapes,
  ...rowShapes,
  ...attentionShapes,
  ...samplingShapes,
  ...optimizerShapes,
};

/** A type as text: `f32[tokens<=2048, 512]`. */
export function formatType(type: TensorType): string {
  return `${type.dtype}${formatShape(type.shape)}`;
}

/** The types of an op's results. @throws ShapeError naming the op and its operands' shapes. */
export function inferTypes<Op extends OpName>(
  op: Op,
  inputs: readonly TensorType[],
  attributes: OpAttributes[Op],
  scope: string,
): readonly TensorType[] {
  const rule: ShapeRule<Op> = shapeRules[op];
  return rule(inputs, attributes, (problem, expected) => {
    throw new ShapeError("shape_mismatch", `${op}: ${problem}`, {
      ...(expected === undefined ? {} : { expected }),
      received: inputs.length === 0 ? "no operands" : inputs.map(formatType).join(", "),
      ...(scope === "" ? {} : { where: scope }),
    });
  });
}
