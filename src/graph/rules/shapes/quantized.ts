import {
  blockBytes,
  blockLayout,
  formatOfBlocks,
  formatProblem,
  groupsOf,
  longestWholeColumn,
  packedBytes,
  paddedColumns,
  type QuantizedFormat,
  type QuantizedParameter,
} from "../../../base/quantized_format.ts";
import { type Shape, sameShape } from "../../../base/shape.ts";
import type { TensorType } from "../../graph.ts";
import type { Fail, ShapeRule } from "../shape.ts";
import {
  lastDimension,
  operands,
  requireDType,
  requireFloat,
  requireInteger,
  requireRank,
  requireSame,
} from "./common.ts";

type QuantizedOp =
  | "quantize_rows"
  | "matmul_quantized"
  | "repack_blocks"
  | "quantize_matrix"
  | "embedding_quantized"
  | "dequantize_matrix";

/** The most weights that one product takes: queries, keys and values, or gates and ups, and some to spare. */
const mostWeights = 8;

/** Fails unless a format can be and its sums of K products fit 32 bits. */
function checkFormat(format: QuantizedFormat, columns: number, fail: Fail): void {
  const problem = formatProblem(format);
  if (problem !== undefined) fail(problem);
  if (format.group === 0 && columns > longestWholeColumn) {
    fail(`columns of ${columns} elements cannot have one scale`, `at most ${longestWholeColumn}`);
  }
}

function requirePacked(type: TensorType, matrix: QuantizedParameter, fail: Fail): void {
  const { format, rows, columns } = matrix;
  checkFormat(format, columns, fail);
  requireDType(type, "u8", "the packed matrix", fail);
  const bytes = packedBytes(format, rows, columns);
  if (!sameShape(type.shape, [bytes])) {
    fail(`the packed matrix must have ${bytes} bytes for [${rows}, ${columns}]`);
  }
}

/** Types of rows of K elements in bytes: values, scales, sums. */
function quantizedRows(leading: Shape, group: number, inner: number): TensorType[] {
  const perGroup = [...leading, groupsOf(group, inner)];
  return [
    { shape: [...leading, paddedColumns(group, inner)], dtype: "i8" },
    { shape: perGroup, dtype: "f32" },
    { shape: perGroup, dtype: "i32" },
  ];
}

/** Shapes of the ops on quantized weights. */
export const quantizedShapes: { readonly [Op in QuantizedOp]: ShapeRule<Op> } = {
  quantize_rows: (inputs, { group }, fail) => {
    const [x] = operands(inputs, 1, fail);
    requireFloat(x!, "x", fail);
    const inner = lastDimension(x!.shape, fail);
    if (typeof inner !== "number") return fail("the inner size must be fixed");
    checkFormat({ bits: 8, group, minimum: false }, inner, fail);
    return quantizedRows(x!.shape.slice(0, -1), group, inner);
  },
  matmul_quantized: (inputs, { weights, inner, bias, residual, dtype }, fail) => {
    const count = weights.length;
    if (count < 1 || count > mostWeights) fail(`it takes 1 to ${mostWeights} weights, got ${count}`);
    if (residual && count > 1) fail("a residual goes with a single weight");
    const expected = 3 + count * (bias ? 2 : 1) + Number(residual);
    const all = operands(inputs, expected, fail);
    const { group } = weights[0]!.format;
    const leading = all[0]!.shape.slice(0, -1);
    const names = ["the values", "the scales", "the sums"];
    quantizedRows(leading, group, inner).forEach((type, index) => {
      requireDType(all[index]!, type.dtype, names[index]!, fail);
      requireSame(all[index]!.shape, type.shape, `${names[index]} and rows of ${inner} elements`, fail);
    });
    return weights.map(({ format, columns }, index) => {
      if (format.group !== group) fail("weights of one product must be in the same groups");
      requirePacked(all[3 + index]!, { format, rows: columns, columns: inner }, fail);
      const shape = [...leading, columns];
      if (bias) {
        requireFloat(all[3 + count + index]!, "the bias", fail);
        requireSame(all[3 + count + index]!.shape, [columns], "the bias and the columns", fail);
      }
      if (residual) {
        requireFloat(all.at(-1)!, "the residual", fail);
        requireSame(all.at(-1)!.shape, shape, "the residual and the result", fail);
      }
      return { shape, dtype };
    });
  },
  repack_blocks: (inputs, { type, rows, columns }, fail) => {
    const [blocks] = operands(inputs, 1, fail);
    requireDType(blocks!, "u8", "the blocks", fail);
    const { elements } = blockLayout(type);
    if (columns % elements !== 0) fail(`rows of ${columns} elements are not whole ${type} blocks`);
    const bytes = blockBytes(type, rows, columns);
    if (!sameShape(blocks!.shape, [bytes]))
      fail(`the blocks of [${rows}, ${columns}] must have ${bytes} bytes`);
    return [{ shape: [packedBytes(formatOfBlocks(type), rows, columns)], dtype: "u8" }];
  },
  quantize_matrix: (inputs, { format }, fail) => {
    const [x] = operands(inputs, 1, fail);
    requireRank(x!, 2, "the matrix", fail);
    requireFloat(x!, "the matrix", fail);
    const [rows, columns] = x!.shape;
    if (typeof rows !== "number" || typeof columns !== "number")
      return fail("the matrix must have fixed sizes");
    checkFormat(format, columns, fail);
    return [{ shape: [packedBytes(format, rows, columns)], dtype: "u8" }];
  },
  embedding_quantized: (inputs, { dtype, ...matrix }, fail) => {
    const [packed, ids] = operands(inputs, 2, fail);
    requirePacked(packed!, matrix, fail);
    requireInteger(ids!, "ids", fail);
    return [{ shape: [...ids!.shape, matrix.columns], dtype }];
  },
  dequantize_matrix: (inputs, { dtype, ...matrix }, fail) => {
    const [packed] = operands(inputs, 1, fail);
    requirePacked(packed!, matrix, fail);
    return [{ shape: [matrix.rows, matrix.columns], dtype }];
  },
};
