import { InternalError } from "../../base/errors.ts";
import type { Sequence } from "./sequence.ts";
import type { SampledToken } from "./types.ts";

/**
 * The sequences to which results belong. Changes nothing.
 * @param flight the sequences of the step
 * @throws InternalError unless each sequence that is due and wanted has exactly one result, and no other has any
 */
export function matchResults(
  living: ReadonlyMap<number, Sequence>,
  flight: readonly Sequence[],
  results: readonly SampledToken[],
): ReadonlyMap<Sequence, SampledToken> {
  const sampled = new Map<Sequence, SampledToken>();
  for (const result of results) {
    const sequence = living.get(result.sequence);
    if (sequence?.due !== true || sampled.has(sequence)) {
      throw new InternalError(`a token of sequence ${result.sequence} came that was not to be sampled`);
    }
    sampled.set(sequence, result);
  }
  for (const carrier of flight) {
    if (!carrier.due) continue;
    for (const sequence of [carrier, ...carrier.forks]) {
      if (!sequence.ended && !sampled.has(sequence)) {
        throw new InternalError(`sequence ${sequence.id} was to be sampled and got no token`);
      }
    }
  }
  return sampled;
}
