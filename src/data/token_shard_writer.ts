import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { blockBytes, littleEndian, type ShardIndex, shardName } from "./token_shards.ts";
import { bytesPerToken, DocumentTable, type TokenisedDocument } from "./token_store.ts";

/** What is written beside the tokens. */
export interface WriteShardsOptions {
  /** What the tokens are made of and by. */
  readonly madeFrom: string;
  readonly vocabularySize: number;
  /** Tokens in a shard file (default 2^27); rounded up to whole blocks. */
  readonly tokensPerShard?: number;
}

/**
 * Writes tokenised documents into a folder, block by block, and flushes every file to disk. The index
 * comes last, so that a folder without one is known to be unfinished.
 */
export async function writeTokenShards(
  folder: string,
  documents: AsyncIterable<TokenisedDocument>,
  options: WriteShardsOptions,
): Promise<void> {
  const width = bytesPerToken(options.vocabularySize);
  const tokensPerBlock = blockBytes / width;
  const blocksPerShard = Math.max(1, Math.ceil((options.tokensPerShard ?? 2 ** 27) / tokensPerBlock));
  const table = new DocumentTable();
  const blocks = new BlockWriter(folder, blocksPerShard);
  const block = width === 2 ? new Uint16Array(tokensPerBlock) : new Uint32Array(tokensPerBlock);
  let filled = 0;
  const flush = async (): Promise<void> => {
    await blocks.write(littleEndian(new Uint8Array(block.buffer, 0, filled * width), width));
    filled = 0;
  };
  try {
    for await (const document of documents) {
      table.add(document);
      for (const id of document.ids) {
        block[filled++] = id;
        if (filled === tokensPerBlock) await flush();
      }
    }
    if (filled > 0) await flush();
  } finally {
    await blocks.close();
  }
  const checksums: Record<string, number> = {};
  const writeArray = async (name: string, array: Float64Array | Int32Array | Uint32Array): Promise<void> => {
    const bytes = littleEndian(
      new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
      array.BYTES_PER_ELEMENT,
    );
    checksums[name] = crc32(bytes);
    await writeFlushed(join(folder, name), bytes);
  };
  await writeArray("blocks.bin", Uint32Array.from(blocks.checksums));
  await writeArray("documents.bin", table.documentStarts);
  if (table.promptLengths !== undefined) await writeArray("prompts.bin", table.promptLengths);
  const index: ShardIndex = {
    format: "slipstream-tokens",
    version: 1,
    made_from: options.madeFrom,
    bytes_per_token: width,
    tokens: table.tokenCount,
    documents: table.documentCount,
    tokens_per_shard: blocksPerShard * tokensPerBlock,
    block_bytes: blockBytes,
    checksums,
  };
  await writeFlushed(join(folder, "index.json"), `${JSON.stringify(index, null, 2)}\n`);
}

/** Writes blocks one after the other into shard files, and remembers their checksums. */
class BlockWriter {
  readonly checksums: number[] = [];
  readonly #folder: string;
  readonly #blocksPerShard: number;
  #file: FileHandle | undefined;

  constructor(folder: string, blocksPerShard: number) {
    this.#folder = folder;
    this.#blocksPerShard = blocksPerShard;
  }

  async write(block: Uint8Array): Promise<void> {
    const shard = this.checksums.length / this.#blocksPerShard;
    if (Number.isInteger(shard)) {
      await this.close();
      this.#file = await open(join(this.#folder, shardName(shard)), "wx");
    }
    this.checksums.push(crc32(block));
    await this.#file!.writeFile(block);
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }
}

async function writeFlushed(path: string, content: string | Uint8Array): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
}
