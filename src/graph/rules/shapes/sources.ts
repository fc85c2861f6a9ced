import { elementCount } from "../../../base/shape.ts";
import type { ShapeRule } from "../shape.ts";
import { operands } from "./common.ts";

/** Shapes of the ops that start programs. */
export const sourceShapes: {
  readonly [Op in "leaf" | "constant" | "fill" | "iota" | "random"]: ShapeRule<Op>;
} = {
  leaf: (inputs, { shape, dtype }, fail) => {
    operands(inputs, 0, fail);
    return [{ shape, dtype }];
  },
  constant: (inputs, { data, shape, dtype }, fail) => {
    operands(inputs, 0, fail);
    if (data.length !== elementCount(shape)) {
      fail(
        `${data.length} values do not fill the shape`,
        `${elementCount(shape)} values for [${shape.join(", ")}]`,
      );
    }
    return [{ shape, dtype }];
  },
  fill: (inputs, { shape, dtype }, fail) => {
    operands(inputs, 0, fail);
    return [{ shape, dtype }];
  },
  iota: (inputs, { axis, shape, dtype }, fail) => {
    operands(inputs, 0, fail);
    if (axis < 0 || axis >= shape.length) fail(`axis ${axis} is not one of the shape's`);
    return [{ shape, dtype }];
  },
  random: (inputs, { shape }, fail) => {
    const [seed] = operands(inputs, 1, fail);
    if (seed!.dtype !== "i32" || seed!.shape.length !== 1 || seed!.shape[0] !== 2)
      fail("the seed must be i32 [2]");
    return [{ shape, dtype: "f32" }];
  },
};
