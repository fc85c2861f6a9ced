import { fromF16Bits } from "../../../base/dtype.ts";
import { type BlockType, blockLayout } from "../../../base/quantized_format.ts";

/** A group of consecutive elements of a block: w = scale * (q - zero) - minimum, q as the block stores it. */
export interface BlockGroup {
  readonly q: readonly number[];
  /** What the integers of this type of block are offset by. */
  readonly zero: number;
  readonly scale: number;
  readonly minimum: number;
}

/** Reads one block, element by element. */
type BlockReader = (bytes: Uint8Array) => BlockGroup[];

function half(bytes: Uint8Array, at: number): number {
  return fromF16Bits(bytes[at]! | (bytes[at + 1]! << 8));
}

const indices = (count: number): number[] => Array.from({ length: count }, (_, index) => index);
const signed = (byte: number): number => (byte << 24) >> 24;

/** The six-bit scale and minimum of each of eight groups, in twelve bytes. */
function sixBitPairs(bytes: Uint8Array): { readonly scale: number; readonly minimum: number }[] {
  return indices(8).map((group) => {
    if (group < 4) return { scale: bytes[group]! & 63, minimum: bytes[group + 4]! & 63 };
    const low = bytes[group + 4]!;
    return {
      scale: (low & 15) | ((bytes[group - 4]! >> 6) << 4),
      minimum: (low >> 4) | ((bytes[group]! >> 6) << 4),
    };
  });
}

/** Groups of 32 nibbles: 32 bytes hold an even group in their low halves and an odd one in their high halves. */
function nibble(bytes: Uint8Array, element: number): number {
  const byte = bytes[Math.floor(element / 64) * 32 + (element % 32)]!;
  return element % 64 < 32 ? byte & 15 : byte >> 4;
}

const readers: Record<BlockType, BlockReader> = {
  q8_0: (bytes) => [
    { q: indices(32).map((i) => signed(bytes[2 + i]!)), zero: 0, scale: half(bytes, 0), minimum: 0 },
  ],
  q4_0: (bytes) => [
    {
      q: indices(32).map((i) => (i < 16 ? bytes[2 + i]! & 15 : bytes[2 + i - 16]! >> 4)),
      zero: 8,
      scale: half(bytes, 0),
      minimum: 0,
    },
  ],
  q4_k: (bytes) =>
    sixBitPairs(bytes.subarray(4, 16)).map(({ scale, minimum }, group) => ({
      q: indices(32).map((i) => nibble(bytes.subarray(16), group * 32 + i)),
      zero: 0,
      scale: half(bytes, 0) * scale,
      minimum: half(bytes, 2) * minimum,
    })),
  q5_k: (bytes) =>
    sixBitPairs(bytes.subarray(4, 16)).map(({ scale, minimum }, group) => ({
      q: indices(32).map(
        (i) => nibble(bytes.subarray(48), group * 32 + i) | (((bytes[16 + i]! >> group) & 1) << 4),
      ),
      zero: 0,
      scale: half(bytes, 0) * scale,
      minimum: half(bytes, 2) * minimum,
    })),
  q6_k: (bytes) =>
    indices(16).map((group) => ({
      q: indices(16).map((i) => {
        const element = group * 16 + i;
        const [part, within] = [Math.floor(element / 128), element % 128];
        const byte = bytes[part * 64 + (within % 64)]!;
        const low = within < 64 ? byte & 15 : byte >> 4;
        const pairs = bytes[128 + part * 32 + (within % 32)]!;
        return low | (((pairs >> (2 * Math.floor(within / 32))) & 3) << 4);
      }),
      zero: 32,
      scale: half(bytes, 208) * signed(bytes[192 + group]!),
      minimum: 0,
    })),
};

/** The groups of one block of GGUF (as ggml's reference implementation lays them out). */
export function readBlock(type: BlockType, bytes: Uint8Array): BlockGroup[] {
  return readers[type](bytes.subarray(0, blockLayout(type).bytes));
}
