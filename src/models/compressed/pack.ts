import type { TensorData } from "../../base/dtype.ts";
import { formatOfBlocks, type QuantizedParameter } from "../../base/quantized_format.ts";
import { putF16 } from "../../checkpoint/gguf/index.ts";
import type { WeightPacker } from "../pack_weights.ts";
import { dequantize, type IntegerMatrix } from "./codec.ts";

/**
 * Packs a quantized matrix for kernels. Four bits go as Q4_0 blocks, which have a scale for every 32 columns;
 * what these cannot hold goes as int8 with one scale a row.
 */
export async function packIntegers(
  packer: WeightPacker,
  matrix: IntegerMatrix,
): Promise<{ readonly packed: QuantizedParameter; readonly data: TensorData }> {
  const { bits, rows, columns, group } = matrix;
  if (bits === 4 && group % 32 === 0) {
    const packed = { format: formatOfBlocks("q4_0"), rows, columns };
    return { packed, data: await packer.repack("q4_0", rows, columns, asBlocks(matrix)) };
  }
  const packed = { format: { bits: 8, group: 0, minimum: false }, rows, columns } as const;
  return { packed, data: await packer.quantize(packed, dequantize(matrix), "f32") };
}

/** 4-bit numbers as Q4_0 blocks: see checkpoint/gguf/blocks.ts. */
function asBlocks({ values, scales, group }: IntegerMatrix): Uint8Array {
  const blocks = values.length / 32;
  const bytes = new Uint8Array(blocks * 18);
  for (let block = 0; block < blocks; block++) {
    putF16(bytes, 18 * block, scales[Math.floor((32 * block) / group)]!);
    for (let i = 0; i < 16; i++) {
      const low = values[32 * block + i]! + 8;
      const high = values[32 * block + 16 + i]! + 8;
      bytes[18 * block + 2 + i] = low | (high << 4);
    }
  }
  return bytes;
}
