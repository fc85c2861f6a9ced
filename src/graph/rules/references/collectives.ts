import { InternalError } from "../../../base/errors.ts";
import { elementCount, stridesOf } from "../../../base/shape.ts";
import type { CollectiveOp, OpAttributes, RankGroup } from "../../ops.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";

/**
 * What a collective gives to one rank, from the operands of all ranks of its group in their order: the scalar
 * meaning that every implementation is held to.
 */
export type CollectiveRule<Op extends CollectiveOp> = (
  ranks: readonly (readonly ReferenceTensor[])[],
  attributes: OpAttributes[Op],
) => ReferenceTensor[];

/** One meaning a collective. */
export const collectiveRules: { readonly [Op in CollectiveOp]: CollectiveRule<Op> } = {
  all_reduce: (ranks) => ranks[0]!.map((_, index) => sum(ranks.map((operands) => operands[index]!))),
  reduce_scatter: (ranks, { group, dimension }) =>
    ranks[0]!.map((_, index) =>
      part(sum(ranks.map((operands) => operands[index]!)), dimension, group.rank, group.size),
    ),
  all_gather: (ranks, { dimension }) =>
    ranks[0]!.map((_, index) =>
      join(
        ranks.map((operands) => operands[index]!),
        dimension,
      ),
    ),
  all_to_all: (ranks, { group, split, concatenate }) =>
    ranks[0]!.map((_, index) =>
      join(
        ranks.map((operands) => part(operands[index]!, split, group.rank, group.size)),
        concatenate,
      ),
    ),
  permute: (ranks, { group, offset }) => [
    ...ranks[(((group.rank - offset) % group.size) + group.size) % group.size]!,
  ],
};

function alone<Op extends CollectiveOp>(op: Op): ReferenceRule<Op> {
  return (inputs, attributes) => {
    const { axes, size } = (attributes as { group: RankGroup }).group;
    if (size !== 1) throw new InternalError(`${op} of the ${size} ranks of "${axes}" is evaluated by one`);
    return collectiveRules[op]([inputs], attributes).map(({ values }) => values);
  };
}

/** Collectives of a single rank. Those of several need a group: see runtime/reference. */
export const collectiveReferences: { readonly [Op in CollectiveOp]: ReferenceRule<Op> } = {
  all_reduce: alone("all_reduce"),
  reduce_scatter: alone("reduce_scatter"),
  all_gather: alone("all_gather"),
  all_to_all: alone("all_to_all"),
  permute: alone("permute"),
};

function sum(terms: readonly ReferenceTensor[]): ReferenceTensor {
  const values = Float64Array.from(terms[0]!.values);
  for (const term of terms.slice(1)) {
    for (let index = 0; index < values.length; index++) values[index]! += term.values[index]!;
  }
  return { shape: terms[0]!.shape, values };
}

/** Part `index` of `count` along a dimension. */
function part(tensor: ReferenceTensor, dimension: number, index: number, count: number): ReferenceTensor {
  const shape = tensor.shape.map((size, axis) => (axis === dimension ? size / count : size));
  const inner = stridesOf(tensor.shape)[dimension]!;
  const [from, to] = [tensor.shape[dimension]! * inner, shape[dimension]! * inner];
  const values = new Float64Array(elementCount(shape));
  for (let row = 0; row * to < values.length; row++) {
    const start = row * from + index * to;
    values.set(tensor.values.subarray(start, start + to), row * to);
  }
  return { shape, values };
}

function join(tensors: readonly ReferenceTensor[], dimension: number): ReferenceTensor {
  const [first] = tensors as [ReferenceTensor];
  const shape = first.shape.map((size, axis) => (axis === dimension ? size * tensors.length : size));
  const chunk = stridesOf(first.shape)[dimension]! * first.shape[dimension]!;
  const values = new Float64Array(elementCount(shape));
  for (let row = 0; row * chunk < first.values.length; row++) {
    tensors.forEach((tensor, index) => {
      const source = tensor.values.subarray(row * chunk, (row + 1) * chunk);
      values.set(source, (row * tensors.length + index) * chunk);
    });
  }
  return { shape, values };
}
