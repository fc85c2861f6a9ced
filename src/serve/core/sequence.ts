import type { BlockKey } from "./block_keys.ts";

/** A request that was added and has answers to come. */
export interface ActiveRequest {
  readonly id: string;
  /** When it came, as a running number. */
  readonly arrival: number;
  readonly priority: number;
  readonly tenant: string;
  readonly promptLength: number;
  /** Tokens of a sequence at the most, prompt included. */
  readonly maximumLength: number;
  /** Key before the first block: prefixes are shared among those of one root. */
  readonly rootKey: BlockKey;
  /** Its sequences that have not ended. */
  readonly sequences: Set<Sequence>;
  /** Prompt tokens found in the cache when it was admitted; undefined before. */
  cachedTokens: number | undefined;
}

/** A block that a running sequence is about to compute, so that others may wait for it. */
export interface Claim {
  readonly owner: Sequence;
  /** Which block of the owner. */
  readonly index: number;
  readonly key: BlockKey;
  /** The block is computed, or its owner lost it: there is nothing to wait for. */
  settled: boolean;
}

/** One answer: its tokens known, and how many of them are computed (have keys and values in its blocks). */
export class Sequence {
  readonly id: number;
  readonly request: ActiveRequest;
  readonly answer: number;
  /** Prompt and answer so far. At rest the last one at least is not computed. Empty while `carrier` is set. */
  tokens: number[];
  computed = 0;
  /** Blocks of positions 0, 1, ..; may reach beyond what is computed. */
  table: number[] = [];
  /** Keys of the full blocks of `tokens`, as far as they were needed. */
  keys: BlockKey[] = [];
  claims: Claim[] = [];
  /** The block computed by another for which this waiting sequence waits. */
  awaited: Claim | undefined = undefined;
  /** Answers that part from this sequence after the prompt. */
  forks: Sequence[] = [];
  /** The sequence that computes the prompt of this one. */
  carrier: Sequence | undefined = undefined;
  /** Tokens that run in the step that is planned or in flight. */
  planned = 0;
  /** Whether the step in flight brings a token. */
  due = false;
  /** Ends as soon as it may: after the step in flight, or when the answers that it carries have parted. */
  ended = false;
  /** `[id]`, so that a decode need not make it. */
  readonly self: readonly number[];

  constructor(id: number, request: ActiveRequest, answer: number, tokens: number[]) {
    this.id = id;
    this.request = request;
    this.answer = answer;
    this.tokens = tokens;
    this.self = [id];
  }

  /** Tokens known and not computed. */
  get remaining(): number {
    return this.tokens.length - this.computed;
  }

  /** Whether the next step of this sequence runs exactly its last answer token. */
  get decodes(): boolean {
    return this.remaining === 1 && this.tokens.length > this.request.promptLength;
  }

  /** Places among the running sequences that it and those it carries take. */
  get places(): number {
    return 1 + this.forks.length;
  }
}

/** Who has the right of way: smaller priority, then earlier request, then earlier answer. Negative: `a` has. */
export function rightOfWay(a: Sequence, b: Sequence): number {
  return (
    a.request.priority - b.request.priority || a.request.arrival - b.request.arrival || a.answer - b.answer
  );
}

/** Inserts into a list that is sorted by right of way. */
export function insertByRight(sequences: Sequence[], sequence: Sequence): void {
  let index = sequences.length;
  while (index > 0 && rightOfWay(sequence, sequences[index - 1]!) < 0) index--;
  sequences.splice(index, 0, sequence);
}
