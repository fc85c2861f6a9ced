import type { TensorType } from "../../graph.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import {
  operands,
  requireDType,
  requireFloat,
  requireRank,
  requireSame,
  requireStatistic,
} from "./common.ts";

/**
 * Operands: parameter, gradient, `states` state buffers, hyper of `hyperparameters` numbers. Results: the
 * parameter and the states.
 */
function update(states: number, hyperparameters: number) {
  return (inputs: readonly TensorType[], _attributes: unknown, fail: Fail): readonly TensorType[] => {
    const [parameter, gradient, ...rest] = operands(inputs, states + 3, fail);
    const buffers = rest.slice(0, states);
    requireRank(parameter!, 1, "parameter", fail);
    requireDType(parameter!, "f32", "parameter", fail);
    requireFloat(gradient!, "gradient", fail);
    for (const buffer of buffers) requireDType(buffer, "f32", "every state", fail);
    for (const buffer of [gradient!, ...buffers]) {
      requireSame(buffer.shape, parameter!.shape, "the parameter and its gradient and states", fail);
    }
    requireStatistic(rest[states]!, [hyperparameters], "hyper", fail);
    return [parameter!, ...buffers];
  };
}

/** Shapes of the optimizer updates. */
export const optimizerShapes: {
  readonly [Op in "adamw" | "adam" | "sgd" | "lion" | "adagrad" | "sum_of_squares"]: ShapeRule<Op>;
} = {
  adamw: update(2, 8),
  adam: update(2, 8),
  sgd: update(1, 6),
  lion: update(1, 5),
  adagrad: update(1, 4),
  sum_of_squares: (inputs, _attributes, fail) => {
    const [x] = operands(inputs, 1, fail);
    requireFloat(x!, "x", fail);
    return [{ shape: [1], dtype: "f32" }];
  },
};
