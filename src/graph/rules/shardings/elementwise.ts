import { isFloat } from "../../../base/dtype.ts";
import type { ElementwiseOperation } from "../../expression.ts";
import type { TensorType } from "../../graph.ts";
import type { Label, OpSharding, ShardingRule } from "../sharding.ts";
import { labelsOf } from "./common.ts";

/** Operands in which an operation is linear; none for all others. */
const linearOperands: Partial<Record<ElementwiseOperation, readonly (readonly number[])[]>> = {
  add: [[0, 1]],
  subtract: [[0, 1]],
  negate: [[0]],
  multiply: [[0], [1]],
  divide: [[0]],
  select: [[1, 2]],
};

/** Operands are aligned with the result at the end; a size of 1 that is stretched stays whole. */
function broadcasting(
  inputs: readonly TensorType[],
  outputs: readonly TensorType[],
  linear: readonly (readonly number[])[],
): OpSharding {
  const { shape } = outputs[0]!;
  const labels = labelsOf(outputs[0]);
  const aligned = inputs.map((input): Label[] => {
    const offset = shape.length - input.shape.length;
    return input.shape.map((size, axis) => (size === 1 ? null : labels[offset + axis]!));
  });
  return { inputs: aligned, outputs: [labels], linear };
}

/** How elementwise ops may be cut: along every dimension. */
export const elementwiseShardings: {
  readonly [Op in "elementwise" | "cast" | "map"]: ShardingRule<Op>;
} = {
  elementwise: (inputs, outputs, { operation }) =>
    broadcasting(inputs, outputs, linearOperands[operation] ?? []),
  cast: (inputs, outputs, { dtype }) =>
    broadcasting(inputs, outputs, isFloat(dtype) && isFloat(inputs[0]!.dtype) ? [[0]] : []),
  map: (inputs, outputs) => broadcasting(inputs, outputs, []),
};
