import { createHash } from "node:crypto";
import { ConfigError, DataError } from "../base/errors.ts";
import { assembleBatch, type MicroBatch } from "./batch.ts";
import { type Packing, type PackingMode, pack } from "./packing.ts";
import { shuffled, spannedTokens, type TokenSpans } from "./split.ts";
import type { TokenStore } from "./token_store.ts";

/** How a loader makes batches. */
export interface LoaderOptions {
  /** What the data is called in errors. */
  readonly name: string;
  readonly store: TokenStore;
  /** The documents of the store that this loader reads. */
  readonly spans: TokenSpans;
  /** Tokens in a row. */
  readonly sequenceLength: number;
  /** Rows in a micro-batch of one rank. */
  readonly batchSize: number;
  /** `rows` (default) cuts the documents end to end; `best_fit` keeps short documents whole. */
  readonly packing?: PackingMode;
  /** Whether attention stops at the ends of documents within a row (default true). */
  readonly documentBoundaries?: boolean;
  /** Whether each epoch takes the rows in an order of its own (default true). */
  readonly shuffle?: boolean;
  /** Decides the order (default 0). */
  readonly seed?: number;
  /** Which of the data-parallel ranks this loader feeds (default 0). */
  readonly rank?: number;
  /** How many data-parallel ranks there are (default 1). */
  readonly worldSize?: number;
}

/**
 * Where a loader stands, as plain JSON: what it reads, and how many rows all ranks together have been
 * given. It says nothing of batch size and ranks, so a run may go on with others.
 */
export interface LoaderState {
  readonly version: 1;
  readonly consumed_rows: number;
  readonly data: string;
  readonly split: string;
  readonly sequence_length: number;
  readonly packing: PackingMode;
  readonly document_boundaries: boolean;
  readonly shuffle: boolean;
  readonly seed: number;
  readonly rows: number;
}

type RowDescription = Omit<LoaderState, "consumed_rows">;

/** The streams of random numbers that order the rows; epoch e has stream `orderStream + e`. */
const orderStream = 0x64617461;

/**
 * Gives packed micro-batches without end. All ranks walk one sequence of rows: epoch after epoch, each
 * in its own seeded order. A micro-batch takes the next `batchSize * worldSize` rows, of which each rank
 * gets its `batchSize`; so rows are shared among ranks without overlap, the same rows make up a step
 * however it is divided into micro-batches, and an epoch may end in the middle of a batch.
 */
export class DataLoader {
  /** Rows in an epoch. */
  readonly rowCount: number;
  /** Tokens of documents in an epoch. */
  readonly tokenCount: number;
  readonly #options: Required<LoaderOptions>;
  readonly #packing: Packing;
  readonly #description: RowDescription;
  readonly #orders = new Map<number, Uint32Array>();
  #consumedRows = 0;

  /** @throws DataError where the data does not fill a single row; ConfigError where a number is wrong. */
  constructor(options: LoaderOptions, packing?: Packing) {
    this.#options = {
      packing: "rows",
      documentBoundaries: true,
      shuffle: true,
      seed: 0,
      rank: 0,
      worldSize: 1,
      ...options,
    };
    const { name, store, spans, sequenceLength, batchSize, rank, worldSize, seed } = this.#options;
    checkInteger("sequence_length", sequenceLength, 2, 2 ** 24);
    checkInteger("the micro-batch size", batchSize, 1, 2 ** 24);
    checkInteger("the number of ranks", worldSize, 1, 2 ** 20);
    checkInteger("the rank", rank, 0, worldSize - 1);
    checkInteger("seed", seed, 0, Number.MAX_SAFE_INTEGER);
    this.#packing = packing ?? pack(this.#options.packing, spans, sequenceLength);
    this.rowCount = this.#packing.rowCount;
    this.tokenCount = this.#packing.packedTokens;
    if (this.rowCount === 0) {
      throw new DataError("too_little_data", "the data does not fill a single sequence", {
        where: name,
        expected: `at least ${sequenceLength} tokens (sequence_length)`,
        received: `${spannedTokens(spans)} tokens`,
        hint: "give more data, or lower sequence_length",
      });
    }
    if (!hasTargets(spans, this.#options.documentBoundaries)) {
      throw new DataError("nothing_to_learn", "the data holds nothing to learn", {
        where: name,
        expected: "documents of at least two tokens, not all of them prompt",
        received: `${spans.starts.length} documents with ${spannedTokens(spans)} tokens, none of which follows another and is to be learnt`,
        hint: "check how the data was made, and which field is the prompt",
      });
    }
    this.#description = {
      version: 1,
      data: store.identity,
      split: hashSpans(spans),
      sequence_length: sequenceLength,
      packing: this.#options.packing,
      document_boundaries: this.#options.documentBoundaries,
      shuffle: this.#options.shuffle,
      seed,
      rows: this.rowCount,
    };
  }

  /** Epochs begun, as a fraction: 1.5 is the middle of the second. */
  get epoch(): number {
    return this.#consumedRows / this.rowCount;
  }

  /** The next micro-batch of this rank. The place moves on at the call, so calls may overlap. */
  next(): Promise<MicroBatch> {
    const { batchSize, rank, worldSize } = this.#options;
    const first = this.#consumedRows + rank * batchSize;
    this.#consumedRows += batchSize * worldSize;
    const rows = Array.from({ length: batchSize }, (_, index) => this.#rowAt(first + index));
    return this.#assemble(rows);
  }

  /**
   * Every row once, unshuffled, for evaluation; it does not move the loader's place. Each rank gets the
   * same number of micro-batches, all of full size: rows that are lacking at the end have no targets.
   */
  async *onePass(limits: { readonly maximumBatches?: number } = {}): AsyncGenerator<MicroBatch> {
    const { batchSize, rank, worldSize } = this.#options;
    const rowsAtOnce = batchSize * worldSize;
    const count = Math.min(limits.maximumBatches ?? Infinity, Math.ceil(this.rowCount / rowsAtOnce));
    for (let batch = 0; batch < count; batch++) {
      const first = batch * rowsAtOnce + rank * batchSize;
      const rows = Array.from({ length: batchSize }, (_, index) => first + index);
      yield await this.#assemble(rows.map((row) => (row < this.rowCount ? row : undefined)));
    }
  }

  /** A loader of the same rows for another rank, from the start. It shares the tokens and the packing. */
  forRank(rank: number, worldSize: number): DataLoader {
    return new DataLoader({ ...this.#options, rank, worldSize }, this.#packing);
  }

  /** Where the loader stands after the micro-batches that were asked for so far. */
  state(): LoaderState {
    return { ...this.#description, consumed_rows: this.#consumedRows };
  }

  /**
   * Goes to where another loader of the same rows stood; what follows is what would have followed there.
   * @throws ConfigError naming what differs, where the state is of other data or other settings.
   */
  restore(state: LoaderState): void {
    const keys = Object.keys(this.#description) as (keyof RowDescription)[];
    const different = keys.find((key) => state[key] !== this.#description[key]);
    if (different !== undefined) {
      throw new ConfigError("resume_mismatch", "the checkpoint's place in the data does not fit this run", {
        where: `${this.#options.name}, ${different}`,
        expected: `${different} ${JSON.stringify(this.#description[different])} (this run)`,
        received: `${different} ${JSON.stringify(state[different])} (the checkpoint)`,
        hint:
          different === "data" || different === "split"
            ? "the data, its split or the tokenizer has changed since: use the same, or start a new run"
            : "resume with the settings of the run that wrote the checkpoint, or start a new run",
      });
    }
    if (!Number.isSafeInteger(state.consumed_rows) || state.consumed_rows < 0) {
      throw new ConfigError("resume_mismatch", "the checkpoint's place in the data is damaged", {
        where: `${this.#options.name}, consumed_rows`,
        expected: "a whole number of rows",
        received: String(state.consumed_rows),
      });
    }
    this.#consumedRows = state.consumed_rows;
  }

  #assemble(rows: readonly (number | undefined)[]): Promise<MicroBatch> {
    return assembleBatch(rows, { ...this.#options, packing: this.#packing });
  }

  /** The row at a place in the endless sequence of epochs. */
  #rowAt(place: number): number {
    const epoch = Math.floor(place / this.rowCount);
    const index = place - epoch * this.rowCount;
    if (!this.#options.shuffle) return index;
    let order = this.#orders.get(epoch);
    if (order === undefined) {
      order = shuffled(this.rowCount, this.#options.seed, (orderStream + epoch) >>> 0);
      for (const old of this.#orders.keys()) if (Math.abs(old - epoch) > 1) this.#orders.delete(old);
      this.#orders.set(epoch, order);
    }
    return order[index]!;
  }
}

/** Whether any token of any span is to be predicted. */
function hasTargets(spans: TokenSpans, documentBoundaries: boolean): boolean {
  return spans.starts.some((start, span) => {
    const first = documentBoundaries ? start + 1 : start;
    return spans.ends[span]! > Math.max(first, spans.promptEnds[span]!);
  });
}

function hashSpans(spans: TokenSpans): string {
  const hash = createHash("sha256");
  for (const array of [spans.starts, spans.ends, spans.promptEnds]) {
    hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
  }
  return hash.digest("hex").slice(0, 16);
}

function checkInteger(name: string, value: number, low: number, high: number): void {
  if (Number.isSafeInteger(value) && value >= low && value <= high) return;
  throw new ConfigError("bad_data_option", `${name} cannot be used`, {
    expected: `an integer from ${low} to ${high}`,
    received: String(value),
  });
}
