import { InternalError } from "../../base/errors.ts";
import type { BlockKey } from "./block_keys.ts";

/**
 * The blocks of the key/value cache: who is used how often, which are free, and which hold contents that others
 * may share. A block that nobody holds is free even when its contents are known; it keeps them until it is taken,
 * the least recently used first. Every operation takes constant time.
 */
export class BlockPool {
  readonly size: number;
  /** Holders of each block: entries in block tables, and copies of a step in flight that read it. */
  readonly #references: Int32Array;
  /** The free blocks as a ring through `size`: blocks without contents first, then from the longest unused. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #keys: (BlockKey | undefined)[];
  readonly #blocksByKey = new Map<BlockKey, number>();
  #free = 0;

  constructor(size: number) {
    this.size = size;
    this.#references = new Int32Array(size);
    this.#next = new Int32Array(size + 1);
    this.#previous = new Int32Array(size + 1);
    this.#keys = new Array<BlockKey | undefined>(size).fill(undefined);
    this.#next[size] = size;
    this.#previous[size] = size;
    for (let block = 0; block < size; block++) this.#insertBefore(size, block);
  }

  /** Blocks that nobody holds. */
  get free(): number {
    return this.#free;
  }

  references(block: number): number {
    return this.#references[block]!;
  }

  /** The key under which the block's contents are shared, where they are. */
  keyOf(block: number): BlockKey | undefined {
    return this.#keys[block];
  }

  /** The block that holds the contents of `key`. */
  find(key: BlockKey): number | undefined {
    return this.#blocksByKey.get(key);
  }

  /** Takes a free block for one holder; what it held is forgotten. */
  take(): number {
    const block = this.#next[this.size]!;
    if (block === this.size) throw new InternalError("a block is taken from a pool without free blocks");
    this.#unlink(block);
    this.forget(block);
    this.#references[block] = 1;
    return block;
  }

  /** One more holder of a block whose contents are in use or known. */
  hold(block: number): void {
    if (this.#references[block] === 0) this.#unlink(block);
    this.#references[block]!++;
  }

  /** One holder less. */
  release(block: number): void {
    const references = this.#references[block]! - 1;
    if (references < 0) throw new InternalError(`block ${block} is released though nobody holds it`);
    this.#references[block] = references;
    if (references > 0) return;
    if (this.#keys[block] === undefined) this.#insertBefore(this.#next[this.size]!, block);
    else this.#insertBefore(this.size, block);
  }

  /** Makes the contents of a held block known, unless another block is known to hold the same. */
  publish(block: number, key: BlockKey): void {
    if (this.#keys[block] !== undefined || this.#blocksByKey.has(key)) return;
    this.#keys[block] = key;
    this.#blocksByKey.set(key, block);
  }

  /** The contents of a block are shared no more. */
  forget(block: number): void {
    const key = this.#keys[block];
    if (key === undefined) return;
    this.#keys[block] = undefined;
    this.#blocksByKey.delete(key);
  }

  forgetAll(): void {
    this.#keys.fill(undefined);
    this.#blocksByKey.clear();
  }

  /**
   * Compares the pool with a recount of the holders of each block.
   * @throws InternalError naming the first block that is wrong.
   */
  check(holders: Int32Array): void {
    const listed = new Uint8Array(this.size);
    let free = 0;
    for (let block = this.#next[this.size]!; block !== this.size; block = this.#next[block]!) {
      if (listed[block] === 1) throw new InternalError(`block ${block} is twice among the free ones`);
      if (this.#previous[this.#next[block]!] !== block) {
        throw new InternalError(`block ${block} is not linked both ways among the free ones`);
      }
      listed[block] = 1;
      free++;
    }
    if (free !== this.#free) throw new InternalError(`${free} blocks are free, ${this.#free} were counted`);
    let known = 0;
    for (let block = 0; block < this.size; block++) {
      const references = this.#references[block]!;
      if (references !== holders[block]) {
        throw new InternalError(`block ${block} has ${holders[block]} holders, ${references} were counted`);
      }
      if ((references === 0) !== (listed[block] === 1)) {
        const state =
          references === 0 ? "lost: nobody holds it and it is not free" : "free though it is held";
        throw new InternalError(`block ${block} is ${state}`);
      }
      const key = this.#keys[block];
      if (key === undefined) continue;
      known++;
      if (this.#blocksByKey.get(key) !== block) {
        throw new InternalError(`block ${block} is known by a key that leads elsewhere`);
      }
    }
    if (known !== this.#blocksByKey.size) {
      throw new InternalError(`${this.#blocksByKey.size} keys lead to blocks, ${known} blocks have keys`);
    }
  }

  #insertBefore(following: number, block: number): void {
    const preceding = this.#previous[following]!;
    this.#next[preceding] = block;
    this.#previous[block] = preceding;
    this.#next[block] = following;
    this.#previous[following] = block;
    this.#free++;
  }

  #unlink(block: number): void {
    const preceding = this.#previous[block]!;
    const following = this.#next[block]!;
    this.#next[preceding] = following;
    this.#previous[following] = preceding;
    this.#free--;
  }
}
