import type { TensorType } from "../../graph.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import { operands, requireRank, requireSame } from "./common.ts";

/** Operands: parameter, gradient, `states` state buffers, hyper. Results: the parameter and the states. */
function update(states: number) {
  return (inputs: readonly TensorType[], _attributes: unknown, fail: Fail): readonly TensorType[] => {
    const [parameter, gradient, ...rest] = operands(inputs, states + 3, fail);
    requireRank(parameter!, 1, "parameter", fail);
    const buffers = rest.slice(0, states);
    for (const buffer of [gradient!, ...buffers]) {
      requireSame(buffer.shape, parameter!.shape, "the parameter and its gradient and states", fail);
    }
    return [parameter!, ...buffers];
  };
}

/** Shapes of the optimizer updates. */
export const optimizerShapes: {
  readonly [Op in "adamw" | "adam" | "sgd" | "lion" | "adagrad" | "sum_of_squares"]: ShapeRule<Op>;
} = {
  adamw: update(2),
  adam: update(2),
  sgd: update(1),
  lion: update(1),
  adagrad: update(1),
  sum_of_squares: (inputs, _attributes, fail) => {
    operands(inputs, 1, fail);
    return [{ shape: [1], dtype: "f32" }];
  },
};
