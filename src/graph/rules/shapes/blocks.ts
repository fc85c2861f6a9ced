import { isFloat } from "../../../base/dtype.ts";
import { type Dimension, sameShape } from "../../../base/shape.ts";
import type { BlockFormat } from "../../ops.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import { lastDimension, operands, requireDType, requireFloat } from "./common.ts";

type BlockOp = "quantize_blocks" | "dequantize_blocks";

/** Shapes of the ops that make numbers smaller to send them. */
export const blockShapes: { readonly [Op in BlockOp]: ShapeRule<Op> } = {
  quantize_blocks: (inputs, format, fail) => {
    const [x] = operands(inputs, 1, fail);
    requireFloat(x!, "x", fail);
    const columns = lastDimension(x!.shape, fail);
    if (typeof columns !== "number") return fail("the rows must be of a fixed length");
    return quantized(x!.shape.slice(0, -1), columns, format, fail);
  },
  dequantize_blocks: (inputs, { columns, dtype, ...format }, fail) => {
    const [values, scales] = operands(inputs, 2, fail);
    const leading = values!.shape.slice(0, -1);
    quantized(leading, columns, format, fail).forEach((expected, index) => {
      const given = [values!, scales!][index]!;
      const name = index === 0 ? "the values" : "the scales";
      requireDType(given, expected.dtype, name, fail);
      if (!sameShape(given.shape, expected.shape)) fail(`${name} are not those of rows of ${columns}`);
    });
    if (!isFloat(dtype)) fail(`${dtype} is no float`);
    return [{ shape: [...leading, columns], dtype }];
  },
};

function quantized(leading: readonly Dimension[], columns: number, { bits, block }: BlockFormat, fail: Fail) {
  if (bits !== 8 && bits !== 4) fail(`values of ${bits} bits`, "8 or 4 bits");
  if (!Number.isInteger(block) || block < 2 || block % 2 !== 0) fail(`blocks of ${block}`, "an even size");
  return [
    { shape: [...leading, bits === 8 ? columns : Math.ceil(columns / 2)], dtype: "u8" as const },
    { shape: [...leading, Math.ceil(columns / block)], dtype: "f32" as const },
  ];
}
