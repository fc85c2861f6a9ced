import type { StatePiece } from "../base/pieces.ts";
import { chunkBytes } from "./file_writer.ts";
import type { Share } from "./shares.ts";

const chunkElements = chunkBytes / Float32Array.BYTES_PER_ELEMENT;

/**
 * What a rank writes of a piece, chunk by chunk while a run goes on. `freeze` waits for the chunk at hand and copies what
 * has not been asked for yet, so that the piece may change: a save that keeps ahead of the next update copies nothing.
 */
export class FrozenShare {
  readonly #piece: StatePiece;
  /** Counted from the start of the piece. */
  readonly #end: number;
  #next: number;
  /** Settles when the chunk at hand is not read from the piece any more. */
  #reading: Promise<void> = Promise.resolve();
  #copy: { readonly data: Float32Array; readonly start: number } | undefined;

  constructor(piece: StatePiece, share: Share) {
    this.#piece = piece;
    this.#next = share.start - piece.start;
    this.#end = share.end - piece.start;
  }

  /** The elements, in order. A chunk is valid until the next one is asked for, or no more are. */
  async *chunks(): AsyncGenerator<Float32Array> {
    let buffer: Float32Array | undefined;
    while (this.#next < this.#end) {
      const start = this.#next;
      const length = Math.min(chunkElements, this.#end - start);
      this.#next = start + length;
      if (this.#copy !== undefined) {
        const offset = start - this.#copy.start;
        yield this.#copy.data.subarray(offset, offset + length);
        continue;
      }
      const { resident } = this.#piece;
      if (resident !== undefined) {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#reading = promise;
        try {
          yield resident.subarray(start, start + length);
        } finally {
          resolve();
        }
        continue;
      }
      buffer ??= new Float32Array(length);
      const chunk = buffer.subarray(0, length);
      this.#reading = this.#piece.read(start, chunk);
      await this.#reading;
      yield chunk;
    }
    this.#copy = undefined;
  }

  /** Resolves when the piece may change. */
  async freeze(): Promise<void> {
    if (this.#copy === undefined && this.#next < this.#end) {
      const start = this.#next;
      const data = new Float32Array(this.#end - start);
      await this.#piece.read(start, data);
      // What is asked for from here on comes from the copy.
      this.#copy = { data, start };
    }
    await this.#reading;
  }
}
