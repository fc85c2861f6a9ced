import { InternalError } from "../../base/errors.ts";
import type { Sequence } from "./sequence.ts";
import type { WaitingQueue } from "./waiting_queue.ts";

/**
 * Checks that every living sequence has exactly one place: it runs, waits without blocks, or is carried by one that
 * does.
 * @throws InternalError naming the sequence that has none, or two, or blocks that it should not hold
 */
export function checkPlaces(
  running: readonly Sequence[],
  queue: WaitingQueue,
  living: ReadonlyMap<number, Sequence>,
): void {
  const waiting = [...queue];
  if (waiting.length !== queue.size) {
    throw new InternalError(`${waiting.length} sequences wait, ${queue.size} were counted`);
  }
  for (const sequence of waiting) {
    if (sequence.table.length > 0 || sequence.claims.length > 0) {
      throw new InternalError(`sequence ${sequence.id} waits and holds block ${sequence.table[0]}`);
    }
  }
  const listed = new Set<Sequence>();
  for (const sequence of [...running, ...waiting]) {
    for (const each of [sequence, ...sequence.forks]) {
      if (listed.has(each)) throw new InternalError(`sequence ${each.id} is in two places`);
      if (living.get(each.id) !== each || !each.request.sequences.has(each)) {
        throw new InternalError(`sequence ${each.id} goes on after its end`);
      }
      listed.add(each);
    }
  }
  for (const sequence of living.values()) {
    if (!listed.has(sequence)) throw new InternalError(`sequence ${sequence.id} has no place`);
  }
}
