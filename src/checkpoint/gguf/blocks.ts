import { fromBf16Bits, fromF16Bits } from "../../base/dtype.ts";
import { InternalError } from "../../base/errors.ts";
import { f16At, putF16 } from "./f16.ts";
import {
  dequantizeQ4K,
  dequantizeQ5K,
  dequantizeQ6K,
  quantizeQ4K,
  quantizeQ5K,
  quantizeQ6K,
} from "./k_blocks.ts";
import { type BlockTypeName, type TensorTypeName, tensorBytes, tensorTypes } from "./types.ts";

// The codecs in plain TypeScript: what native kernels are checked against, and what `convert` uses.
//
// Q8_0: 32 elements in 34 bytes: scale f16, 32 x int8.                      x = scale * q
// Q4_0: 32 elements in 18 bytes: scale f16, 16 bytes of two 4-bit numbers:  x = scale * (q - 8)
//       byte i holds element i in its low half and element i + 16 in its high half.
// Q4_K, Q5_K, Q6_K: see k_blocks.ts.

/** What decoders read and encoders write: bytes of blocks from `at` on, and elements from `first` on. */
export type BlockCodec = (bytes: Uint8Array, at: number, values: Float32Array, first: number) => void;

const decoders: Readonly<Record<BlockTypeName, BlockCodec>> = {
  Q8_0: (bytes, at, values, first) => {
    const scale = f16At(bytes, at);
    for (let i = 0; i < 32; i++) values[first + i] = scale * ((bytes[at + 2 + i]! << 24) >> 24);
  },
  Q4_0: (bytes, at, values, first) => {
    const scale = f16At(bytes, at);
    for (let i = 0; i < 16; i++) {
      const byte = bytes[at + 2 + i]!;
      values[first + i] = scale * ((byte & 15) - 8);
      values[first + 16 + i] = scale * ((byte >> 4) - 8);
    }
  },
  Q4_K: dequantizeQ4K,
  Q5_K: dequantizeQ5K,
  Q6_K: dequantizeQ6K,
};

const encoders: Readonly<Record<BlockTypeName, BlockCodec>> = {
  Q8_0: encodeQ8,
  Q4_0: encodeQ4,
  Q4_K: quantizeQ4K,
  Q5_K: quantizeQ5K,
  Q6_K: quantizeQ6K,
};

/** Scale = largest magnitude / 127; rounds half away from zero, as ggml's reference does. */
function encodeQ8(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  let largest = 0;
  for (let i = 0; i < 32; i++) largest = Math.max(largest, Math.abs(values[first + i]!));
  const scale = Math.fround(largest / 127);
  const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
  putF16(bytes, at, scale);
  for (let i = 0; i < 32; i++) {
    const scaled = Math.fround(values[first + i]! * inverse);
    bytes[at + 2 + i] = scaled < 0 ? -Math.floor(0.5 - scaled) : Math.floor(scaled + 0.5);
  }
}

/** The element of largest magnitude becomes -8, so that it is exact; the others round down from + 8.5. */
function encodeQ4(bytes: Uint8Array, at: number, values: Float32Array, first: number): void {
  let extreme = 0;
  for (let i = 0; i < 32; i++) {
    if (Math.abs(values[first + i]!) > Math.abs(extreme)) extreme = values[first + i]!;
  }
  const scale = Math.fround(extreme / -8);
  const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
  putF16(bytes, at, scale);
  const code = (value: number): number =>
    Math.min(15, Math.trunc(Math.fround(Math.fround(value * inverse) + 8.5)));
  for (let i = 0; i < 16; i++) {
    bytes[at + 2 + i] = code(values[first + i]!) | (code(values[first + 16 + i]!) << 4);
  }
}

/** The elements of blocks as float32. @param values as many elements as the bytes hold. */
export function dequantizeBlocks(type: BlockTypeName, bytes: Uint8Array, values: Float32Array): void {
  eachBlock(type, bytes, values, decoders[type]);
}

/** Elements as blocks, written into `bytes`. Whole blocks, finite elements. */
export function quantizeBlocks(type: BlockTypeName, values: Float32Array, bytes: Uint8Array): void {
  eachBlock(type, bytes, values, encoders[type]);
}

function eachBlock(type: BlockTypeName, bytes: Uint8Array, values: Float32Array, codec: BlockCodec): void {
  const block = tensorTypes[type];
  if (values.length % block.elements !== 0 || bytes.length !== tensorBytes(type, values.length)) {
    throw new InternalError(`${bytes.length} bytes of ${type} are not ${values.length} elements`);
  }
  for (let at = 0, first = 0; first < values.length; at += block.bytes, first += block.elements) {
    codec(bytes, at, values, first);
  }
}

/** The elements of a tensor of any readable type as float32. */
export function decodeTensor(type: TensorTypeName, bytes: Uint8Array, values: Float32Array): void {
  switch (type) {
    case "F32":
      new Uint8Array(values.buffer, values.byteOffset, values.byteLength).set(bytes);
      return;
    case "F16":
    case "BF16": {
      const from = type === "F16" ? fromF16Bits : fromBf16Bits;
      for (let i = 0; i < values.length; i++) values[i] = from(bytes[2 * i]! | (bytes[2 * i + 1]! << 8));
      return;
    }
    default:
      dequantizeBlocks(type, bytes, values);
  }
}
