import type { AnyNode, TensorType } from "../graph.ts";
import type { OpAttributes, OpName } from "../ops.ts";
import { attentionShardings } from "./shardings/attention.ts";
import { elementwiseShardings } from "./shardings/elementwise.ts";
import { matrixShardings } from "./shardings/matrix.ts";
import { movementShardings } from "./shardings/movement.ts";
import { otherShardings } from "./shardings/others.ts";
import { rowShardings } from "./shardings/rows.ts";

/**
 * What a dimension is called within an op: dimensions of one label are cut together, into as many equal parts.
 * null: the op needs the whole dimension on every rank.
 */
export type Label = string | null;

/**
 * How the dimensions of an op's operands and results belong together, as in an einsum. Where a label is cut, the op
 * on the parts gives the parts of every result that has the label; a result without it is a term of a sum over the
 * ranks (it is *partial*).
 */
export interface OpSharding {
  readonly inputs: readonly (readonly Label[])[];
  readonly outputs: readonly (readonly Label[])[];
  /**
   * Sets of operands in which the op is linear, the others held fixed: where all of a set are partial sums, so are
   * all results.
   */
  readonly linear: readonly (readonly number[])[];
}

/** How an op may be cut, from the types of its operands and results. */
export type ShardingRule<Op extends OpName> = (
  inputs: readonly TensorType[],
  outputs: readonly TensorType[],
  attributes: OpAttributes[Op],
) => OpSharding;

/** One answer an op; a missing op does not compile. Ops that cannot be cut say so for each dimension. */
export const shardingRules: { readonly [Op in OpName]: ShardingRule<Op> } = {
  ...otherShardings,
  ...elementwiseShardings,
  ...movementShardings,
  ...matrixShardings,
  ...rowShardings,
  ...attentionShardings,
};

/** How a node may be cut. */
export function shardingOf(node: AnyNode): OpSharding {
  const rule = shardingRules[node.op] as ShardingRule<OpName>;
  const inputs = node.inputs.map(({ node: producer, index }) => producer.outputs[index]!);
  return rule(inputs, node.outputs, node.attributes);
}
