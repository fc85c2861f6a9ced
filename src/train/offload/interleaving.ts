/** One of the two lanes of a disk. */
export interface DiskLane {
  /** Bytes a second. */
  readonly bandwidth: number;
  /** The share of the time of a micro-batch in which the lane moves something else. */
  readonly busy: number;
}

/** What the update of a sub-group moves, and when it could start. */
export interface SubGroupCost {
  readonly name: string;
  /** The share of a micro-batch's time that is left when its gradient is whole and nothing reads its weights. */
  readonly remaining: number;
  readonly readBytes: number;
  readonly writeBytes: number;
}

/** What the choice of sub-groups depends on. */
export interface InterleavingCosts {
  /** Seconds of the last micro-batch, forward and backward, without any update. */
  readonly microBatchSeconds: number;
  readonly reading: DiskLane;
  readonly writing: DiskLane;
  readonly subGroups: readonly SubGroupCost[];
}

/**
 * Chooses which sub-groups are updated during the last micro-batch instead of after it (after Lin et al., "Deep
 * Optimizer States", arXiv 2410.21316, with a disk in the place of a GPU's link). Arithmetic is the same either way; what can be won is the time
 * of transfers, hidden behind what is left of backward. Sub-groups are looked at in the order in which their gradients
 * are whole: one whose states can be read and written in the time that the lanes have left is interleaved, any other
 * would make backward wait and is updated afterwards. What moves nothing is updated afterwards, too.
 * @returns the names of the sub-groups to interleave
 */
export function chooseInterleaving(costs: InterleavingCosts): Set<string> {
  const { microBatchSeconds: end, reading, writing, subGroups } = costs;
  const seconds = (bytes: number, { bandwidth, busy }: DiskLane): number => {
    if (bytes === 0) return 0;
    const left = bandwidth * Math.max(0, 1 - busy);
    return left > 0 ? bytes / left : Number.POSITIVE_INFINITY;
  };
  const chosen = new Set<string>();
  let [readUntil, writtenUntil] = [0, 0];
  for (const { name, remaining, readBytes, writeBytes } of subGroups.toSorted(
    (a, b) => b.remaining - a.remaining,
  )) {
    if (readBytes + writeBytes === 0) continue;
    const ready = end * (1 - remaining);
    const read = Math.max(readUntil, ready) + seconds(readBytes, reading);
    const written = Math.max(writtenUntil, read) + seconds(writeBytes, writing);
    if (written > end) continue;
    chosen.add(name);
    [readUntil, writtenUntil] = [read, written];
  }
  return chosen;
}
