import { type Dimension, upperBound } from "../../../base/shape.ts";
import type { TensorType } from "../../graph.ts";
import type { CollectiveOp, RankGroup } from "../../ops.ts";
import type { Fail, ShapeRule } from "../shape.ts";

/** Shapes of the ops that ranks do together. */
export const collectiveShapes: { readonly [Op in CollectiveOp]: ShapeRule<Op> } = {
  all_reduce: (inputs, { group }, fail) => {
    requireGroup(inputs, group, fail);
    return inputs;
  },
  reduce_scatter: (inputs, { group, dimension }, fail) => {
    requireGroup(inputs, group, fail);
    return inputs.map((input) => withSize(input, dimension, (size) => divided(size, group, fail), fail));
  },
  all_gather: (inputs, { group, dimension }, fail) => {
    requireGroup(inputs, group, fail);
    return inputs.map((input) => withSize(input, dimension, (size) => multiplied(size, group), fail));
  },
  all_to_all: (inputs, { group, split, concatenate }, fail) => {
    requireGroup(inputs, group, fail);
    return inputs.map((input) => {
      const part = withSize(input, split, (size) => divided(size, group, fail), fail);
      return withSize(part, concatenate, (size) => multiplied(size, group), fail);
    });
  },
  permute: (inputs, { group, offset }, fail) => {
    requireGroup(inputs, group, fail);
    if (!Number.isInteger(offset)) fail(`the offset ${offset} is not a whole number of ranks`);
    return inputs;
  },
};

function requireGroup(inputs: readonly TensorType[], { axes, size, rank }: RankGroup, fail: Fail): void {
  if (inputs.length === 0) fail("it takes one tensor at least, got none");
  if (!Number.isInteger(size) || size < 1 || !Number.isInteger(rank) || rank < 0 || rank >= size) {
    fail(`rank ${rank} is not one of the ${size} ranks of group "${axes}"`);
  }
}

function withSize(
  type: TensorType,
  dimension: number,
  change: (size: Dimension) => Dimension,
  fail: Fail,
): TensorType {
  if (!Number.isInteger(dimension) || dimension < 0 || dimension >= type.shape.length) {
    fail(`there is no dimension ${dimension}`);
  }
  const shape = type.shape.map((size, axis) => (axis === dimension ? change(size) : size));
  return { shape, dtype: type.dtype };
}

function divided(size: Dimension, { axes, size: ranks }: RankGroup, fail: Fail): Dimension {
  if (typeof size === "number") {
    if (size % ranks !== 0) fail(`${size} does not divide among the ${ranks} ranks of group "${axes}"`);
    return size / ranks;
  }
  if (size.scale % ranks !== 0) {
    fail(`a size of up to ${upperBound(size)} does not always divide among ${ranks} ranks`);
  }
  return { ...size, scale: size.scale / ranks };
}

function multiplied(size: Dimension, { size: ranks }: RankGroup): Dimension {
  return typeof size === "number" ? size * ranks : { ...size, scale: size.scale * ranks };
}
