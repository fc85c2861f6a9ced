import { endianness } from "node:os";

/**
 * The files of a token cache, all little-endian:
 *
 *     tokens-00000.bin …  the tokens, 2 or 4 bytes each, `tokens_per_shard` in every file but the last
 *     blocks.bin          uint32: the CRC-32 of each block of `block_bytes` of the token files
 *     documents.bin       float64 [documents + 1]: where each document starts
 *     prompts.bin         int32 [documents]: tokens of its prompt; only where a document has one
 *     index.json          what follows; it is written last
 *
 * No block reaches over two shards: every shard but the last is a whole number of blocks.
 */
export interface ShardIndex {
  readonly format: "slipstream-tokens";
  readonly version: 1;
  /** What the tokens were made of and by: sources and tokenizer. */
  readonly made_from: string;
  readonly bytes_per_token: 2 | 4;
  readonly tokens: number;
  readonly documents: number;
  readonly tokens_per_shard: number;
  readonly block_bytes: number;
  /** CRC-32 of the smaller files, by name. */
  readonly checksums: Readonly<Record<string, number>>;
}

/** Bytes that are read, and checked, at once. */
export const blockBytes = 2 ** 16;

/** The name of a shard's file. */
export function shardName(shard: number): string {
  return `tokens-${String(shard).padStart(5, "0")}.bin`;
}

/** The bytes of native numbers as little-endian, or the other way; the same bytes where they are that. */
export function littleEndian(bytes: Uint8Array, bytesPerElement: number): Uint8Array {
  if (endianness() === "LE") return bytes;
  const swapped = new Uint8Array(bytes);
  const view = Buffer.from(swapped.buffer);
  if (bytesPerElement === 2) view.swap16();
  else if (bytesPerElement === 4) view.swap32();
  else view.swap64();
  return swapped;
}
