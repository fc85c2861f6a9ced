import { InternalError } from "../../base/errors.ts";
import { type BlockKey, blockKey } from "./block_keys.ts";
import { BlockPool } from "./block_pool.ts";
import type { Claim, Sequence } from "./sequence.ts";
import type { BlockCopy } from "./types.ts";

/** A copy of the step in flight: the writer's block table names the copy, the source is held until the step ends. */
interface PlannedCopy extends BlockCopy {
  readonly sequence: Sequence;
  /** Which block of the sequence. */
  readonly index: number;
}

/** What the cache holds of a sequence's beginning. */
export interface CachedPrefix {
  /** In order from position 0. */
  readonly blocks: readonly number[];
  /** Of these, how many nobody holds: holding them takes as many from the free ones. */
  readonly unheld: number;
  /** Tokens that need not be computed: all but the last one at the most. */
  readonly tokens: number;
}

/**
 * A waiting sequence waits for blocks that another is computing if that spares it at least this part of its work.
 * For less, as for a few words that open every prompt, the step that it loses weighs more.
 */
const worthWaiting = 1 / 8;

/**
 * The blocks of sequences: found in the cache, appended, copied before they are written when others see them,
 * published once computed, given back. A block may be written by its holder only while no other holds it and its
 * contents are not published; so whoever shares a block always reads what was there when it was shared.
 */
export class SequenceBlocks {
  readonly blockSize: number;
  readonly pool: BlockPool;
  readonly #caching: boolean;
  readonly #claims = new Map<BlockKey, Claim>();
  /** Holders of a block that only keep it as the source of a planned copy. */
  readonly #sources = new Map<number, number>();
  #copies: PlannedCopy[] = [];

  constructor(options: {
    readonly blocks: number;
    readonly blockSize: number;
    readonly prefixCaching: boolean;
  }) {
    this.blockSize = options.blockSize;
    this.pool = new BlockPool(options.blocks);
    this.#caching = options.prefixCaching;
  }

  /** Copies to make before the step. No destination is a source, or twice a destination. */
  get copies(): readonly BlockCopy[] {
    return this.#copies.map(({ source, destination }) => ({ source, destination }));
  }

  /** Blocks that hold `tokens` tokens. */
  blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.blockSize);
  }

  /** What is cached of the beginning of a sequence that holds no blocks. */
  cachedPrefix(sequence: Sequence): CachedPrefix {
    const blocks: number[] = [];
    let unheld = 0;
    if (this.#caching) {
      const full = Math.floor(sequence.tokens.length / this.blockSize);
      for (; blocks.length < full; ) {
        const block = this.pool.find(this.#key(sequence, blocks.length));
        if (block === undefined) break;
        if (this.pool.references(block) === 0) unheld++;
        blocks.push(block);
      }
    }
    return {
      blocks,
      unheld,
      tokens: Math.min(blocks.length * this.blockSize, sequence.tokens.length - 1),
    };
  }

  /**
   * Whether a sequence should wait because one that has no lower priority computes, right now, a part of its
   * beginning that is worth it.
   */
  isWorthWaiting(sequence: Sequence, cached: CachedPrefix): boolean {
    if (!this.#caching) return false;
    const full = Math.floor(sequence.tokens.length / this.blockSize);
    let last: Claim | undefined;
    for (let index = cached.blocks.length; index < full; index++) {
      const claim = this.#claims.get(this.#key(sequence, index));
      if (claim === undefined || claim.owner.request.priority > sequence.request.priority) break;
      last = claim;
    }
    if (last === undefined) return false;
    const spared = (last.index + 1) * this.blockSize - cached.tokens;
    if (spared < worthWaiting * (sequence.tokens.length - cached.tokens)) return false;
    sequence.awaited = last;
    return true;
  }

  /** Starts a sequence on what is cached, and announces the blocks that it is going to compute. */
  start(sequence: Sequence, cached: CachedPrefix): void {
    for (const block of cached.blocks) this.pool.hold(block);
    sequence.table = [...cached.blocks];
    sequence.computed = cached.tokens;
    if (!this.#caching) return;
    const full = Math.floor(sequence.tokens.length / this.blockSize);
    for (let index = cached.blocks.length; index < full; index++) {
      const key = this.#key(sequence, index);
      if (this.#claims.has(key)) continue;
      const claim: Claim = { owner: sequence, index, key, settled: false };
      this.#claims.set(key, claim);
      sequence.claims.push(claim);
    }
  }

  /**
   * Makes room to write `count` tokens after those computed.
   * @param makeFree called when no block is free: frees some, or returns false where it cannot
   * @returns for how many tokens, from none to `count`, there is room
   */
  reserve(sequence: Sequence, count: number, makeFree: () => boolean): number {
    const { table, computed } = sequence;
    const first = Math.floor(computed / this.blockSize);
    if (first < table.length && !this.#makeWritable(sequence, first, makeFree)) return 0;
    const needed = this.blocksFor(computed + count);
    while (table.length < needed) {
      if (this.pool.free === 0 && !makeFree()) break;
      // What was freed may all be held as the source of a copy until the step ends.
      if (this.pool.free > 0) table.push(this.pool.take());
    }
    return Math.min(count, table.length * this.blockSize - computed);
  }

  /** The step ran: its tokens are computed, and blocks that they filled are published. */
  advance(sequence: Sequence): void {
    const from = Math.floor(sequence.computed / this.blockSize);
    sequence.computed += sequence.planned;
    sequence.planned = 0;
    if (!this.#caching) return;
    const to = Math.floor(sequence.computed / this.blockSize);
    for (let index = from; index < to; index++) {
      this.pool.publish(sequence.table[index]!, this.#key(sequence, index));
    }
    let settled = 0;
    while (settled < sequence.claims.length && sequence.claims[settled]!.index < to) {
      this.#settle(sequence.claims[settled++]!);
    }
    if (settled > 0) sequence.claims.splice(0, settled);
  }

  /** Gives `fork` a share in everything that `carrier` computed. */
  fork(carrier: Sequence, fork: Sequence): void {
    for (const block of carrier.table) this.pool.hold(block);
    fork.table = [...carrier.table];
    fork.keys = [...carrier.keys];
    fork.computed = carrier.computed;
  }

  /** Gives all blocks of a sequence back; nothing of it is computed any more. */
  release(sequence: Sequence): void {
    // The last ones first: as they come to be taken, a beginning, which more share, outlives what follows it.
    for (let index = sequence.table.length - 1; index >= 0; index--) {
      this.pool.release(sequence.table[index]!);
    }
    sequence.table = [];
    sequence.computed = 0;
    sequence.planned = 0;
    for (const claim of sequence.claims) this.#settle(claim);
    sequence.claims = [];
  }

  /** The step ended: sources of its copies are no longer held for it. */
  settleCopies(): void {
    for (const { source } of this.#copies) this.pool.release(source);
    this.#copies = [];
    this.#sources.clear();
  }

  /** The step did not run: those who were to write into copies have their share in the sources again. */
  undoCopies(): void {
    for (const { sequence, index, source, destination } of this.#copies) {
      sequence.table[index] = source;
      this.pool.release(destination);
    }
    this.#copies = [];
    this.#sources.clear();
  }

  /** Forgets what blocks are known to hold. */
  resetPrefixCache(): void {
    this.pool.forgetAll();
  }

  /**
   * Recounts every block.
   * @throws InternalError naming the block, the sequence or the key that is wrong.
   */
  check(running: Iterable<Sequence>): void {
    const holders = new Int32Array(this.pool.size);
    let claims = 0;
    for (const sequence of running) {
      const { table, computed, tokens, id } = sequence;
      for (const block of table) holders[block]!++;
      if (computed < 0 || computed >= tokens.length) {
        throw new InternalError(`sequence ${id}: ${computed} of ${tokens.length} tokens are computed`);
      }
      if (table.length < this.blocksFor(computed + sequence.planned)) {
        throw new InternalError(`sequence ${id}: ${table.length} blocks for ${computed} tokens`);
      }
      table.forEach((block, index) => {
        const key = this.pool.keyOf(block);
        if (key !== undefined && key !== sequence.keys[index]) {
          throw new InternalError(`block ${block} is not known by what sequence ${id} holds in it`);
        }
      });
      for (const claim of sequence.claims) {
        claims++;
        if (claim.settled || this.#claims.get(claim.key) !== claim) {
          throw new InternalError(`sequence ${id}: block ${claim.index} is announced and cannot be found`);
        }
      }
    }
    if (claims !== this.#claims.size) {
      throw new InternalError(`${this.#claims.size} blocks are awaited, ${claims} are being computed`);
    }
    for (const { source } of this.#copies) holders[source]!++;
    this.pool.check(holders);
  }

  #makeWritable(sequence: Sequence, index: number, makeFree: () => boolean): boolean {
    for (;;) {
      const block = sequence.table[index]!;
      const others = this.pool.references(block) - (this.#sources.get(block) ?? 0) - 1;
      if (others === 0 && this.pool.keyOf(block) === undefined) return true;
      if (this.pool.free > 0) {
        const destination = this.pool.take();
        this.#copies.push({ sequence, index, source: block, destination });
        this.#sources.set(block, (this.#sources.get(block) ?? 0) + 1);
        sequence.table[index] = destination;
        return true;
      }
      // Better that others compute it again than that someone loses its blocks.
      if (others === 0) this.pool.forget(block);
      else if (!makeFree()) return false;
    }
  }

  #settle(claim: Claim): void {
    claim.settled = true;
    this.#claims.delete(claim.key);
  }

  #key(sequence: Sequence, index: number): BlockKey {
    const { keys, tokens, request } = sequence;
    for (let next = keys.length; next <= index; next++) {
      const start = next * this.blockSize;
      keys.push(
        blockKey(next === 0 ? request.rootKey : keys[next - 1]!, tokens, start, start + this.blockSize),
      );
    }
    return keys[index]!;
  }
}
