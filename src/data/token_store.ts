import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { InternalError } from "../base/errors.ts";
import { blockBytes, littleEndian } from "./token_shards.ts";

/** Tokenised documents, one after the other, to be read anywhere. */
export interface TokenStore {
  /** A hash of the tokens and of where documents start: the same wherever the tokens are kept. */
  readonly identity: string;
  readonly tokenCount: number;
  /** [documents + 1]: where each document starts; the last entry is `tokenCount`. */
  readonly documentStarts: Float64Array;
  /** [documents]: how many leading tokens of a document are a prompt; absent where none has one. */
  readonly promptLengths: Int32Array | undefined;
  /** Copies tokens `start` to `start + count` into `target` from `targetStart` on. */
  read(start: number, count: number, target: Int32Array, targetStart: number): Promise<void>;
  /** Closes the files, if there are any. */
  close(): Promise<void>;
}

/** One tokenised document. */
export interface TokenisedDocument {
  readonly ids: readonly number[];
  /** How many of the ids are a prompt, on which no loss is taken. */
  readonly promptLength: number;
}

/** The places of documents in a store, gathered while it is filled. */
export class DocumentTable {
  readonly #starts: number[] = [0];
  readonly #promptLengths: number[] = [];
  #hasPrompts = false;

  add(document: TokenisedDocument): void {
    this.#starts.push(this.tokenCount + document.ids.length);
    this.#promptLengths.push(document.promptLength);
    this.#hasPrompts ||= document.promptLength > 0;
  }

  get tokenCount(): number {
    return this.#starts[this.#starts.length - 1]!;
  }

  get documentCount(): number {
    return this.#promptLengths.length;
  }

  get documentStarts(): Float64Array {
    return Float64Array.from(this.#starts);
  }

  get promptLengths(): Int32Array | undefined {
    return this.#hasPrompts ? Int32Array.from(this.#promptLengths) : undefined;
  }
}

/** A store in memory, two or four bytes a token; `identity` as `storeIdentity` gives it. */
export function memoryStore(
  identity: string,
  tokens: Uint16Array | Uint32Array,
  documentStarts: Float64Array,
  promptLengths: Int32Array | undefined,
): TokenStore {
  return {
    identity,
    tokenCount: tokens.length,
    documentStarts,
    promptLengths,
    read(start, count, target, targetStart) {
      checkRange(start, count, tokens.length);
      target.set(tokens.subarray(start, start + count), targetStart);
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
  };
}

/** A store in memory, filled from documents. Every id must be below 2^32. */
export async function collectTokens(
  documents: AsyncIterable<TokenisedDocument>,
  vocabularySize: number,
): Promise<TokenStore> {
  const table = new DocumentTable();
  let tokens = newTokenArray(vocabularySize, 2 ** 16);
  for await (const document of documents) {
    const start = table.tokenCount;
    table.add(document);
    if (table.tokenCount > tokens.length) {
      const larger = newTokenArray(vocabularySize, Math.max(table.tokenCount, 2 * tokens.length));
      larger.set(tokens);
      tokens = larger;
    }
    tokens.set(document.ids, start);
  }
  const { documentStarts, promptLengths } = table;
  tokens = tokens.slice(0, table.tokenCount);
  const bytes = littleEndian(new Uint8Array(tokens.buffer), tokens.BYTES_PER_ELEMENT);
  const checksums = new Uint32Array(Math.ceil(bytes.length / blockBytes));
  for (let block = 0; block < checksums.length; block++) {
    checksums[block] = crc32(bytes.subarray(block * blockBytes, (block + 1) * blockBytes));
  }
  const identity = storeIdentity(checksums, documentStarts, promptLengths);
  return memoryStore(identity, tokens, documentStarts, promptLengths);
}

/** The identity of a store, from the CRC-32 of each block of its tokens and from its documents. */
export function storeIdentity(
  blockChecksums: Uint32Array,
  documentStarts: Float64Array,
  promptLengths: Int32Array | undefined,
): string {
  const hash = createHash("sha256");
  for (const array of [blockChecksums, documentStarts, promptLengths ?? new Int32Array()]) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    hash.update(`${array.length};`).update(littleEndian(bytes, array.BYTES_PER_ELEMENT));
  }
  return hash.digest("hex").slice(0, 32);
}

/** The bytes in which every id of a vocabulary fits. */
export function bytesPerToken(vocabularySize: number): 2 | 4 {
  return vocabularySize <= 2 ** 16 ? 2 : 4;
}

/** Checks that a read lies within a store. */
export function checkRange(start: number, count: number, tokenCount: number): void {
  if (start >= 0 && count >= 0 && start + count <= tokenCount) return;
  throw new InternalError(`tokens ${start} to ${start + count} were read from a store of ${tokenCount}`);
}

function newTokenArray(vocabularySize: number, length: number): Uint16Array | Uint32Array {
  return bytesPerToken(vocabularySize) === 2 ? new Uint16Array(length) : new Uint32Array(length);
}
