import type { DType } from "../../../base/dtype.ts";
import { isFloat } from "../../../base/dtype.ts";
import { arity } from "../../expression.ts";
import type { TensorType } from "../../graph.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import { broadcastShapes, operands } from "./common.ts";

/**
 * The dtype that an elementwise op gives: that of the widest operand. f64 > f32 > 16-bit floats >
 * integers; a scalar (rank 0) operand yields to the others, so that `x.multiply(2)` keeps x's dtype.
 */
function resultDType(types: readonly TensorType[], fail: Fail): DType {
  const ranked = types.some((type) => type.shape.length > 0)
    ? types.filter((type) => type.shape.length > 0)
    : types;
  const dtypes = new Set(ranked.map((type) => type.dtype));
  for (const dtype of ["f64", "f32"] as const) if (dtypes.has(dtype)) return dtype;
  if (dtypes.has("bf16") && dtypes.has("f16"))
    return fail("bf16 and f16 do not mix", "a cast of one of them");
  for (const dtype of ["bf16", "f16", "i32", "i8", "u8"] as const) if (dtypes.has(dtype)) return dtype;
  return fail("no operands");
}

/** Shapes of the elementwise ops. */
export const elementwiseShapes: {
  readonly [Op in "elementwise" | "cast" | "map"]: ShapeRule<Op>;
} = {
  elementwise: (inputs, { operation }, fail) => {
    const types = operands(inputs, arity(operation), fail);
    const shape = broadcastShapes(
      types.map((type) => type.shape),
      fail,
    );
    const values = operation === "select" ? types.slice(1) : types;
    const dtype = resultDType(values, fail);
    const fractional = [
      "exp",
      "log",
      "sqrt",
      "rsqrt",
      "reciprocal",
      "divide",
      "tanh",
      "sigmoid",
      "sin",
      "cos",
      "erf",
    ];
    if (!isFloat(dtype) && fractional.includes(operation)) {
      fail(`${operation} needs a float operand`, "a cast to f32 first");
    }
    return [{ shape, dtype }];
  },
  cast: (inputs, { dtype }, fail) => {
    const [x] = operands(inputs, 1, fail);
    return [{ shape: x!.shape, dtype }];
  },
  map: (inputs, { expression, dtype }, fail) => {
    const types = operands(inputs, expression.inputs, fail);
    const shape = broadcastShapes(
      types.map((type) => type.shape),
      fail,
    );
    return [{ shape, dtype }];
  },
};
