import type { DType } from "../../../src/base/dtype.ts";
import { constant } from "../../../src/graph/build.ts";
import { createNode } from "../../../src/graph/graph.ts";
import type { BlockFormat, OpName } from "../../../src/graph/ops.ts";
import { evaluateNode } from "../../../src/graph/rules/reference.ts";
import { normal, tensor } from "./draw.ts";
import type { OpSamples } from "./sample.ts";

type BlockOp = Extract<OpName, "quantize_blocks" | "dequantize_blocks">;

const formats: readonly BlockFormat[] = [
  { bits: 8, block: 32 },
  { bits: 8, block: 1024 },
  { bits: 4, block: 32 },
  { bits: 4, block: 6 },
];

function nameOf({ bits, block }: BlockFormat): string {
  return `${bits} bits in blocks of ${block}`;
}

/** Samples of the ops that make numbers smaller to send them; bytes are compared bit for bit. */
export const blockSamples: { readonly [Op in BlockOp]: OpSamples<Op> } = {
  quantize_blocks: {
    dtypes: ["f32", "bf16", "f16"],
    make: (dtype) =>
      formats.flatMap((format) => [
        { name: nameOf(format), inputs: [normal([3, 2, 173], dtype)], attributes: format },
        {
          name: `${nameOf(format)}, zeros and tiny numbers`,
          inputs: [tensor([2, 3], dtype, [0, 0, 0, 1e-38, 0, 1e-40])],
          attributes: format,
        },
      ]),
  },
  dequantize_blocks: {
    dtypes: ["f32", "bf16"],
    make: (dtype) => formats.map((format) => dequantizeSample(format, dtype)),
  },
};

function dequantizeSample(format: BlockFormat, dtype: DType) {
  const columns = 173;
  const x = normal([4, columns], "f32");
  const value = constant(x.values, [4, columns]);
  const node = createNode("quantize_blocks", [value], format);
  const [values, scales] = evaluateNode(node, [value]);
  const shapes = node.outputs.map(({ shape }) => shape as number[]);
  return {
    name: nameOf(format),
    inputs: [tensor(shapes[0]!, "u8", [...values!]), tensor(shapes[1]!, "f32", [...scales!])],
    attributes: { ...format, columns, dtype },
  };
}
