/**
 * The words in which the scheduler speaks. It knows tokens, blocks and sequences; it knows no model, no device
 * and no clock: the same calls give the same answers.
 */

/** How the scheduler fills a step. */
export type SchedulingPolicy =
  /** Decodes first, then pieces of prompts up to the token budget (Dynamic SplitFuse, arXiv 2401.08671). */
  | "splitfuse"
  /** Whole prompts first, decodes only in steps without one: what SplitFuse is compared with. */
  | "prefill-first";

/** The limits within which the scheduler works. */
export interface CoreOptions {
  readonly policy: SchedulingPolicy;
  /** Tokens of one block of the key/value cache. */
  readonly blockSize: number;
  /** Blocks of the pool. */
  readonly blocks: number;
  /** Tokens that one step runs at the most; at least `maximumSequences`. */
  readonly tokenBudget: number;
  /**
   * Tokens at the most of a step that reads prompts while answers are written, or twice those answers where that is
   * more: whoever reads an answer waits for the whole step. Without it such steps are as long as any. Ignored by
   * "prefill-first".
   */
  readonly mixedTokenBudget?: number;
  /** Sequences that run at once at the most. */
  readonly maximumSequences: number;
  /** Requests that may wait; more are refused. */
  readonly maximumWaiting: number;
  /** Tokens of a sequence at the most, prompt and answer together. */
  readonly maximumContext: number;
  /** Whether blocks of equal beginnings are shared. */
  readonly prefixCaching: boolean;
}

/** A request as the scheduler sees it. */
export interface CoreRequest {
  readonly id: string;
  /** At least one token. */
  readonly prompt: readonly number[];
  /** How many answers (`n`): sequences that share the prompt's blocks and part where they differ. */
  readonly answers: number;
  /** Tokens of each answer at the most. */
  readonly maximumTokens: number;
  /** Smaller runs earlier; 0 by default. */
  readonly priority?: number;
  /** Whom it is for: waiting requests of one priority take turns by tenant. */
  readonly tenant?: string;
  /** Prefixes are shared only among requests of the same salt. */
  readonly cacheSalt?: string;
}

/** Why a request was not admitted. */
export type Refusal =
  | { readonly kind: "queue_full"; readonly waiting: number; readonly limit: number }
  | { readonly kind: "context_length_exceeded"; readonly tokens: number; readonly limit: number }
  /** Even alone in the pool it would not fit. */
  | { readonly kind: "pool_too_small"; readonly blocks: number; readonly limit: number }
  /** More answers than sequences may run at once. */
  | { readonly kind: "too_many_answers"; readonly answers: number; readonly limit: number };

/** Consecutive tokens of one sequence, run in one step. */
export interface Chunk {
  /** The sequence: a number that is never used again. */
  readonly sequence: number;
  readonly request: string;
  /** Position of the first token. */
  readonly start: number;
  /** The ids to run: at least one. */
  readonly tokens: readonly number[];
  /**
   * The blocks of positions 0 to start + tokens.length, in order; it may go on beyond. This is the scheduler's own
   * array: it holds until `update`.
   */
  readonly blockTable: readonly number[];
  /**
   * The sequences for which a token is to be sampled after the last of these tokens: none within a prompt,
   * this one in a decode, every answer of the request after the prompt's last piece.
   */
  readonly samples: readonly number[];
}

/**
 * The contents of a block, to be copied before the step runs (copy-on-write). No destination is a source of the same
 * step, or twice a destination, so the order of copies is free.
 */
export interface BlockCopy {
  readonly source: number;
  readonly destination: number;
}

/** One step: plain data. Empty `chunks`: there is nothing to run. */
export interface StepPlan {
  readonly chunks: readonly Chunk[];
  readonly copies: readonly BlockCopy[];
  /** Sequences that lost their blocks for this step; they will be recomputed. */
  readonly preempted: readonly number[];
  /** Tokens of all chunks. */
  readonly tokens: number;
}

/** What one sequence got in the step that ran. */
export interface SampledToken {
  readonly sequence: number;
  readonly token: number;
  /** Whether the sequence ends with this token, for a reason that the scheduler does not know. */
  readonly finished: boolean;
}

/** A sequence of a request. */
export interface SequenceInfo {
  readonly sequence: number;
  readonly request: string;
  /** Which answer of the request: 0 to answers - 1. */
  readonly answer: number;
}

/** Counts for metrics. */
export interface CoreStatistics {
  /** Requests that have not begun, and sequences that lost their blocks. */
  readonly waiting: number;
  /** Sequences that hold blocks; the answers of one prompt count as one until the prompt is computed. */
  readonly running: number;
  readonly freeBlocks: number;
  /** Blocks that sequences hold, of `blocks`. Cached blocks that nobody holds count as free. */
  readonly usedBlocks: number;
  readonly blocks: number;
  /** Since the start. */
  readonly preemptions: number;
  /** Prompt tokens of admitted requests that were looked up in the prefix cache, and those found there. */
  readonly prefixQueries: number;
  readonly prefixHits: number;
}
