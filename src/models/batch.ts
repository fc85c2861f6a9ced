import { DataError } from "../base/errors.ts";
import type { ModelFacts } from "./family.ts";

/** Sequences packed one after another, without padding. */
export interface PackedBatch {
  /** i32 `[tokens]` */
  readonly tokens: Int32Array;
  /** i32 `[tokens]`: the place of each token in its sequence. */
  readonly positions: Int32Array;
  /** i32 `[sequences + 1]` */
  readonly offsets: Int32Array;
  /** i32 `[tokens]`: the next token of the sequence, -1 for the last one. */
  readonly targets: Int32Array;
  /** How many targets are not -1. */
  readonly targetCount: number;
}

/**
 * Packs sequences of token ids and checks them against the model.
 * @throws DataError for an empty batch or sequence, an id out of the vocabulary, or a sequence longer than
 * the model's positions, naming the sequence and the place.
 */
export function packSequences(sequences: readonly (readonly number[])[], facts: ModelFacts): PackedBatch {
  if (sequences.length === 0) throw new DataError("empty_batch", "the batch holds no sequences");
  const total = sequences.reduce((sum, sequence) => sum + sequence.length, 0);
  const tokens = new Int32Array(total);
  const positions = new Int32Array(total);
  const targets = new Int32Array(total).fill(-1);
  const offsets = new Int32Array(sequences.length + 1);
  let next = 0;
  for (const [index, sequence] of sequences.entries()) {
    checkSequence(sequence, index, facts);
    for (const [position, id] of sequence.entries()) {
      tokens[next] = id;
      positions[next] = position;
      if (position + 1 < sequence.length) targets[next] = sequence[position + 1]!;
      next++;
    }
    offsets[index + 1] = next;
  }
  return { tokens, positions, offsets, targets, targetCount: total - sequences.length };
}

function checkSequence(sequence: readonly number[], index: number, facts: ModelFacts): void {
  const where = `sequence ${index} of the batch`;
  if (sequence.length === 0) throw new DataError("empty_sequence", "a sequence holds no tokens", { where });
  if (sequence.length > facts.maximumPositions) {
    throw new DataError("sequence_too_long", "a sequence is longer than the model's positions", {
      where,
      expected: `at most ${facts.maximumPositions} tokens (max_position_embeddings)`,
      received: `${sequence.length} tokens`,
    });
  }
  const bad = sequence.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= facts.vocabularySize);
  if (bad >= 0) {
    throw new DataError("token_out_of_range", "a token id is not in the model's vocabulary", {
      where: `${where}, position ${bad}`,
      expected: `an integer from 0 to ${facts.vocabularySize - 1}`,
      received: String(sequence[bad]),
    });
  }
}
