/** GGUF files: reading, writing, and the codecs of their block types. */
export { decodeTensor, dequantizeBlocks, quantizeBlocks } from "./blocks.ts";
export { putF16 } from "./f16.ts";
export type { GgufTensor } from "./header.ts";
export type { Metadata } from "./metadata.ts";
export { type GgufFile, openGguf } from "./reader.ts";
export {
  type BlockTypeName,
  isBlockType,
  type TensorTypeName,
  tensorBytes,
  tensorTypes,
} from "./types.ts";
export { type GgufEntry, type GgufSource, writeGguf } from "./writer.ts";
