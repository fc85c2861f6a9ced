import type { Packing } from "./packing.ts";
import type { TokenSpans } from "./split.ts";
import type { TokenStore } from "./token_store.ts";

/**
 * Packed rows for one pass of a model: `tokens` is [batchSize * sequenceLength], row after row.
 * Attention stays within a segment, and nothing of a segment is seen from another.
 */
export interface MicroBatch {
  /** [tokens] */
  readonly tokens: Int32Array;
  /** [tokens]: the token that follows within the segment; -1 where none does or it is not to be learnt. */
  readonly targets: Int32Array;
  /** [tokens]: place within the segment, from 0. */
  readonly positions: Int32Array;
  /** [segments + 1]: where each segment starts, rising from 0; the last entry is `tokens.length`. */
  readonly offsets: Int32Array;
  /** How many targets are not -1. */
  readonly targetCount: number;
}

/** What rows are made of, and how they are marked. */
export interface BatchOptions {
  readonly store: TokenStore;
  readonly spans: TokenSpans;
  readonly packing: Packing;
  readonly sequenceLength: number;
  /** Whether a document within a row is a segment of its own, or the row is one segment. */
  readonly documentBoundaries: boolean;
}

/** The id in places where no document stands; any vocabulary has it, and it is never learnt. */
const fillerToken = 0;

/**
 * Makes a batch of rows. Room that packing left in a row, and a whole row where `rows` holds
 * undefined, becomes a segment of its own without targets.
 */
export async function assembleBatch(
  rows: readonly (number | undefined)[],
  options: BatchOptions,
): Promise<MicroBatch> {
  const { store, spans, packing, sequenceLength, documentBoundaries } = options;
  const size = rows.length * sequenceLength;
  const tokens = new Int32Array(size).fill(fillerToken);
  const targets = new Int32Array(size).fill(-1);
  const positions = new Int32Array(size);
  const offsets: number[] = [];
  const firstLearnt: { at: number; end: number }[] = [];
  const reads: Promise<void>[] = [];
  for (const [index, row] of rows.entries()) {
    let at = index * sequenceLength;
    const rowEnd = at + sequenceLength;
    let segmentStart = at;
    for (const { span, start, length } of row === undefined ? [] : packing.pieces(row)) {
      if (documentBoundaries || at === index * sequenceLength) {
        segmentStart = at;
        offsets.push(at);
      }
      reads.push(store.read(start, length, tokens, at));
      const promptTokens = Math.min(length, Math.max(0, spans.promptEnds[span]! - start));
      firstLearnt.push({ at: Math.max(at + promptTokens, segmentStart + 1), end: at + length });
      at += length;
    }
    if (at < rowEnd) offsets.push(at);
  }
  await Promise.all(reads);
  let targetCount = 0;
  for (const { at, end } of firstLearnt) {
    for (let token = at; token < end; token++) targets[token - 1] = tokens[token]!;
    targetCount += Math.max(0, end - at);
  }
  offsets.push(size);
  for (let segment = 0; segment + 1 < offsets.length; segment++) {
    const start = offsets[segment]!;
    for (let token = start; token < offsets[segment + 1]!; token++) positions[token] = token - start;
  }
  return { tokens, targets, positions, offsets: Int32Array.from(offsets), targetCount };
}
