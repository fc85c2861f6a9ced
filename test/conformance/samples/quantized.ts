import type { DType } from "../../../src/base/dtype.ts";
import { toF16Bits } from "../../../src/base/dtype.ts";
import {
  type BlockType,
  blockBytes,
  blockLayout,
  blockTypes,
  formatName,
  formatOfBlocks,
  type QuantizedFormat,
} from "../../../src/base/quantized_format.ts";
import { PhiloxStream } from "../../../src/base/random.ts";
import { apply, createNode, type Value } from "../../../src/graph/graph.ts";
import { activations, type OpAttributes, type OpName } from "../../../src/graph/ops.ts";
import { normal, randomIntegers, type SampleTensor, tensor } from "./draw.ts";
import type { OpSamples, Sample } from "./sample.ts";

type QuantizedOp = Extract<
  OpName,
  | "quantize_rows"
  | "matmul_quantized"
  | "repack_blocks"
  | "quantize_matrix"
  | "embedding_quantized"
  | "dequantize_matrix"
>;

const formats: readonly QuantizedFormat[] = [
  { bits: 8, group: 0, minimum: false },
  { bits: 8, group: 16, minimum: false },
  { bits: 8, group: 32, minimum: false },
  { bits: 8, group: 32, minimum: true },
  { bits: 4, group: 32, minimum: false },
  { bits: 4, group: 32, minimum: true },
  { bits: 4, group: 128, minimum: true },
];

/** Where the two 16-bit scales of a block lie. */
const scalePlaces: Record<BlockType, readonly number[]> = {
  q8_0: [0],
  q4_0: [0],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
};

/** Blocks of random bytes with scales that are finite, of both signs. */
export function randomBlocks(type: BlockType, rows: number, columns: number, seed = 31): SampleTensor {
  const source = new PhiloxStream(seed);
  const bytes = Array.from({ length: blockBytes(type, rows, columns) }, () => source.nextBelow(256));
  for (let start = 0; start < bytes.length; start += blockLayout(type).bytes) {
    for (const place of scalePlaces[type]) {
      const bits = toF16Bits(0.01 * source.nextNormal());
      bytes[start + place] = bits & 255;
      bytes[start + place + 1] = bits >> 8;
    }
  }
  return tensor([bytes.length], "u8", bytes);
}

function quantized(format: QuantizedFormat, matrix: Value): Value {
  return apply("quantize_matrix", [matrix], { format });
}

/** Quantizes rows and weights, then multiplies: inputs x, weights.., biases.., residual. */
function productSample(
  name: string,
  format: QuantizedFormat,
  [rows, inner]: readonly [number, number],
  columns: readonly number[],
  epilogue: Partial<OpAttributes["matmul_quantized"]> & { readonly dtype: DType },
): Sample<"matmul_quantized"> {
  const attributes = {
    weights: columns.map((count) => ({ format, columns: count })),
    inner,
    activation: "none",
    bias: false,
    residual: false,
    ...epilogue,
  } as const;
  const { dtype } = epilogue;
  return {
    name: `${name}, ${formatName(format)}`,
    inputs: [
      normal([rows, inner], dtype),
      ...columns.map((count) => normal([count, inner], dtype)),
      ...(attributes.bias ? columns.map((count) => normal([count], dtype)) : []),
      ...(attributes.residual ? [normal([rows, columns[0]!], dtype)] : []),
    ],
    attributes,
    reduction: inner,
    build: ([x, ...rest]) => {
      const bytes = createNode("quantize_rows", [x!], { group: format.group });
      const operands = bytes.outputs.map((_, index) => ({ node: bytes, index }));
      const weights = rest.slice(0, columns.length).map((matrix) => quantized(format, matrix));
      const node = createNode(
        "matmul_quantized",
        [...operands, ...weights, ...rest.slice(columns.length)],
        attributes,
      );
      return node.outputs.map((_, index) => ({ node, index }));
    },
  };
}

function productSamples(dtype: DType): Sample<"matmul_quantized">[] {
  return [
    ...formats.flatMap((format) => [
      productSample("odd sizes", format, [7, 172], [45], { dtype }),
      productSample("many rows", format, [41, 300], [33], { dtype }),
    ]),
    ...[1, 2, 3, 4, 5, 6, 8, 12, 13].map((rows) =>
      productSample(`${rows} rows`, formats[2]!, [rows, 64], [40], { dtype }),
    ),
    ...activations.map((activation) =>
      productSample(`${activation}(a b + bias) + residual`, formats[4]!, [3, 64], [33], {
        activation,
        bias: true,
        residual: true,
        dtype,
      }),
    ),
    productSample("three weights with biases", formats[2]!, [5, 96], [64, 17, 40], { bias: true, dtype }),
    productSample("no rows", formats[2]!, [0, 64], [33], { dtype }),
    productSample("nothing to sum", formats[2]!, [3, 0], [33], { bias: true, dtype }),
    productSample("nothing to sum, a column", formats[0]!, [3, 0], [33], { bias: true, dtype }),
  ];
}

/** Samples of the ops on quantized weights; packed bytes are compared bit for bit. */
export const quantizedSamples: { readonly [Op in QuantizedOp]: OpSamples<Op> } = {
  quantize_rows: {
    dtypes: ["f32", "bf16", "f16"],
    make: (dtype) =>
      [0, 16, 32, 128].flatMap((group) => [
        { name: `groups of ${group}`, inputs: [normal([3, 5, 172], dtype)], attributes: { group } },
        { name: `groups of ${group}, no rows`, inputs: [normal([0, 40], dtype)], attributes: { group } },
        {
          name: `groups of ${group}, zeros and tiny numbers`,
          inputs: [tensor([2, 3], dtype, [0, 0, 0, 1e-38, 0, 1e-40])],
          attributes: { group },
        },
      ]),
  },
  matmul_quantized: { dtypes: ["f32", "bf16"], make: productSamples },
  repack_blocks: {
    dtypes: ["u8"],
    make: () =>
      blockTypes.flatMap((type) =>
        [3, 70].map((rows) => {
          const columns = 3 * blockLayout(type).elements;
          return {
            name: `${rows} rows of ${type}`,
            inputs: [randomBlocks(type, rows, columns)],
            attributes: { type, rows, columns },
          };
        }),
      ),
  },
  quantize_matrix: {
    dtypes: ["f32", "bf16", "f16"],
    make: (dtype) =>
      formats.flatMap((format) => [
        { name: formatName(format), inputs: [normal([37, 172], dtype)], attributes: { format } },
        {
          name: `${formatName(format)}, zeros`,
          inputs: [tensor([1, 2], dtype, [0, 0])],
          attributes: { format },
        },
      ]),
  },
  embedding_quantized: {
    dtypes: ["f32", "bf16"],
    make: (dtype) =>
      formats.map((format) => ({
        name: formatName(format),
        inputs: [normal([70, 172], dtype), randomIntegers([2, 3], 0, 70)],
        attributes: { format, rows: 70, columns: 172, dtype },
        build: ([matrix, ids]) => [
          apply("embedding_quantized", [quantized(format, matrix!), ids!], {
            format,
            rows: 70,
            columns: 172,
            dtype,
          }),
        ],
      })),
  },
  dequantize_matrix: {
    dtypes: ["f32", "f16"],
    make: (dtype) =>
      blockTypes.map((type) => {
        const columns = 2 * blockLayout(type).elements;
        const format = formatOfBlocks(type);
        return {
          name: type,
          inputs: [randomBlocks(type, 35, columns)],
          attributes: { format, rows: 35, columns, dtype },
          build: ([blocks]) => {
            const packed = apply("repack_blocks", [blocks!], { type, rows: 35, columns });
            return [apply("dequantize_matrix", [packed], { format, rows: 35, columns, dtype })];
          },
        };
      }),
  },
};
