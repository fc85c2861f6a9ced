import { type FileHandle, open, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FileFormatError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { messageOf } from "./files.ts";
import { littleEndian, type ShardIndex, shardName } from "./token_shards.ts";
import { checkRange, memoryStore, storeIdentity, type TokenStore } from "./token_store.ts";

/** How shards are read. */
export interface ReadShardsOptions {
  /** Up to this many bytes of tokens are read into memory; more are read in place (default 64 MiB). */
  readonly memoryLimit?: number;
  /** Blocks of 64 KiB kept in memory when reading in place (default 256). */
  readonly keptBlocks?: number;
}

type TokenArray = Uint16Array | Uint32Array;

/**
 * Opens the token shards of a folder. Sizes and checksums of the small files are checked now; each
 * block of tokens is checked whenever it is read.
 * @throws FileFormatError with code `missing_cache` where there is none, `corrupt_cache` where a file is
 * missing, truncated or damaged, or is of something else than `madeFrom`.
 */
export async function openTokenShards(
  folder: string,
  madeFrom: string,
  options: ReadShardsOptions = {},
): Promise<TokenStore> {
  const index = await readIndex(folder, madeFrom);
  const [startBytes, checksumBytes, promptBytes] = await Promise.all([
    readChecked(folder, "documents.bin", 8 * (index.documents + 1), index),
    readChecked(folder, "blocks.bin", 4 * countBlocks(index), index),
    "prompts.bin" in index.checksums
      ? readChecked(folder, "prompts.bin", 4 * index.documents, index)
      : undefined,
  ]);
  const documentStarts = new Float64Array(littleEndian(startBytes, 8).buffer);
  const checksums = new Uint32Array(littleEndian(checksumBytes, 4).buffer);
  const promptLengths =
    promptBytes === undefined ? undefined : new Int32Array(littleEndian(promptBytes, 4).buffer);
  const identity = storeIdentity(checksums, documentStarts, promptLengths);
  const reader = new BlockReader(folder, index, checksums, options.keptBlocks ?? 256);
  try {
    await reader.open();
    if (index.tokens * index.bytes_per_token <= (options.memoryLimit ?? 64 * 2 ** 20)) {
      const tokens = await reader.readAll();
      await reader.close();
      return memoryStore(identity, tokens, documentStarts, promptLengths);
    }
  } catch (cause) {
    await reader.close();
    throw cause;
  }
  return {
    identity,
    tokenCount: index.tokens,
    documentStarts,
    promptLengths,
    read: (start, count, target, targetStart) => reader.read(start, count, target, targetStart),
    close: () => reader.close(),
  };
}

/** Reads blocks of shard files by position and checks them. */
class BlockReader {
  readonly #folder: string;
  readonly #index: ShardIndex;
  readonly #checksums: Uint32Array;
  readonly #keptBlocks: number;
  /** Blocks read last, the least recently used first. */
  readonly #blocks = new Map<number, Promise<TokenArray>>();
  #files: FileHandle[] = [];

  constructor(folder: string, index: ShardIndex, checksums: Uint32Array, keptBlocks: number) {
    this.#folder = folder;
    this.#index = index;
    this.#checksums = checksums;
    this.#keptBlocks = keptBlocks;
  }

  async open(): Promise<void> {
    const { tokens, tokens_per_shard: perShard, bytes_per_token: width } = this.#index;
    for (let shard = 0; shard * perShard < tokens; shard++) {
      const path = join(this.#folder, shardName(shard));
      const expected = Math.min(perShard, tokens - shard * perShard) * width;
      const received = await stat(path).then(
        (found) => found.size,
        () => undefined,
      );
      if (received !== expected) {
        throw corrupt(path, `${expected} bytes`, received === undefined ? "no file" : `${received} bytes`);
      }
      this.#files.push(await open(path, "r"));
    }
  }

  async close(): Promise<void> {
    const files = this.#files;
    this.#files = [];
    this.#blocks.clear();
    await Promise.all(files.map((file) => file.close()));
  }

  async readAll(): Promise<TokenArray> {
    const length = this.#index.tokens;
    const tokens = this.#index.bytes_per_token === 2 ? new Uint16Array(length) : new Uint32Array(length);
    const perBlock = this.#tokensPerBlock;
    for (let block = 0; block * perBlock < length; block++) {
      tokens.set(await this.#readBlock(block), block * perBlock);
    }
    return tokens;
  }

  async read(start: number, count: number, target: Int32Array, targetStart: number): Promise<void> {
    checkRange(start, count, this.#index.tokens);
    const perBlock = this.#tokensPerBlock;
    for (let done = 0; done < count; ) {
      const block = Math.floor((start + done) / perBlock);
      const from = start + done - block * perBlock;
      const taken = Math.min(count - done, perBlock - from);
      target.set((await this.#keptBlock(block)).subarray(from, from + taken), targetStart + done);
      done += taken;
    }
  }

  get #tokensPerBlock(): number {
    return this.#index.block_bytes / this.#index.bytes_per_token;
  }

  #keptBlock(block: number): Promise<TokenArray> {
    const found = this.#blocks.get(block) ?? this.#readBlock(block);
    this.#blocks.delete(block);
    this.#blocks.set(block, found);
    if (this.#blocks.size > this.#keptBlocks) {
      for (const oldest of this.#blocks.keys()) {
        this.#blocks.delete(oldest);
        break;
      }
    }
    return found;
  }

  async #readBlock(block: number): Promise<TokenArray> {
    const { block_bytes: bytesPerBlock, bytes_per_token: width, tokens } = this.#index;
    const blocksPerShard = (this.#index.tokens_per_shard * width) / bytesPerBlock;
    const shard = Math.floor(block / blocksPerShard);
    const size = Math.min(bytesPerBlock, tokens * width - block * bytesPerBlock);
    const bytes = new Uint8Array(size);
    const position = (block - shard * blocksPerShard) * bytesPerBlock;
    const { bytesRead } = await this.#files[shard]!.read(bytes, 0, size, position);
    if (bytesRead !== size || crc32(bytes) !== this.#checksums[block]) {
      const path = join(this.#folder, shardName(shard));
      throw corrupt(
        `${path}, bytes ${position} to ${position + size}`,
        "the tokens that were written",
        "others",
      );
    }
    const native = littleEndian(bytes, width);
    return width === 2
      ? new Uint16Array(native.buffer, native.byteOffset, size / 2)
      : new Uint32Array(native.buffer, native.byteOffset, size / 4);
  }
}

async function readIndex(folder: string, madeFrom: string): Promise<ShardIndex> {
  const path = join(folder, "index.json");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (["ENOENT", "ENOTDIR"].includes(systemErrorCode(cause) ?? "")) {
      throw new FileFormatError("missing_cache", "there is no token cache", { where: folder });
    }
    throw corrupt(path, "a readable file", messageOf(cause));
  }
  const index = parseIndex(text);
  if (index === undefined) throw corrupt(path, "the index of a token cache", text.slice(0, 40));
  if (index.made_from !== madeFrom) {
    throw corrupt(path, "a cache of this data and tokenizer", "a cache of others");
  }
  return index;
}

function parseIndex(text: string): ShardIndex | undefined {
  let value: Partial<ShardIndex> | null;
  try {
    value = JSON.parse(text) as Partial<ShardIndex> | null;
  } catch {
    return undefined;
  }
  const isCount = (number: unknown): boolean => Number.isSafeInteger(number) && (number as number) >= 0;
  if (value?.format !== "slipstream-tokens" || value.version !== 1) return undefined;
  if (value.bytes_per_token !== 2 && value.bytes_per_token !== 4) return undefined;
  const counts = [value.tokens, value.documents, value.tokens_per_shard, value.block_bytes];
  if (!counts.every(isCount) || !value.block_bytes || !value.tokens_per_shard) return undefined;
  if (typeof value.checksums !== "object" || value.checksums === null) return undefined;
  return value as ShardIndex;
}

function countBlocks(index: ShardIndex): number {
  return Math.ceil((index.tokens * index.bytes_per_token) / index.block_bytes);
}

async function readChecked(
  folder: string,
  name: string,
  size: number,
  index: ShardIndex,
): Promise<Uint8Array> {
  const path = join(folder, name);
  let bytes: Uint8Array;
  try {
    // A copy, as small files come in memory that is shared and not aligned.
    bytes = new Uint8Array(await readFile(path));
  } catch (cause) {
    throw corrupt(path, `${size} bytes`, messageOf(cause));
  }
  if (bytes.length !== size) throw corrupt(path, `${size} bytes`, `${bytes.length} bytes`);
  if (crc32(bytes) !== index.checksums[name]) throw corrupt(path, "the checksum in index.json", "another");
  return bytes;
}

function corrupt(where: string, expected: string, received: string): FileFormatError {
  return new FileFormatError("corrupt_cache", "the token cache is damaged", {
    where,
    expected,
    received,
    hint: "remove its folder; it is made again from the data",
  });
}
