/** A block of memory and the steps between which it is alive, both ends included. */
export interface Lifetime {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
  /** Its offset is a multiple of this: a cache line by default. */
  readonly alignment?: number;
}

/** Where each block lies, and how long the arena is. Bytes. */
export interface ArenaLayout {
  readonly offsets: readonly number[];
  readonly bytes: number;
}

/** Kernels like whole cache lines. */
const alignment = 64;

/** `bytes` rounded up to whole cache lines, or to multiples of `to`. */
export function align(bytes: number, to = alignment): number {
  return Math.ceil(bytes / to) * to;
}

/**
 * Lays out blocks so that those alive at the same time do not overlap: the largest first, each at the
 * smallest gap that holds it (the "greedy by size" heuristic of Pisarchyk and Lee, "Efficient Memory
 * Management for Deep Neural Net Inference", arXiv 2001.03288).
 */
export function layOutArena(blocks: readonly Lifetime[]): ArenaLayout {
  const order = blocks
    .map((_, index) => index)
    .sort((a, b) => blocks[b]!.bytes - blocks[a]!.bytes || blocks[a]!.first - blocks[b]!.first || a - b);
  const offsets = new Array<number>(blocks.length).fill(0);
  /** Placed blocks by offset. */
  const placed: number[] = [];
  let total = 0;
  for (const index of order) {
    const block = blocks[index]!;
    const bytes = align(block.bytes);
    if (bytes === 0) continue;
    let best = -1;
    let bestGap = Number.POSITIVE_INFINITY;
    let cursor = 0;
    for (const other of placed) {
      const neighbour = blocks[other]!;
      if (neighbour.first > block.last || neighbour.last < block.first) continue;
      const start = align(cursor, block.alignment);
      const gap = offsets[other]! - start;
      if (gap >= bytes && gap < bestGap) {
        best = start;
        bestGap = gap;
      }
      cursor = Math.max(cursor, offsets[other]! + align(neighbour.bytes));
    }
    const offset = best >= 0 ? best : align(cursor, block.alignment);
    offsets[index] = offset;
    total = Math.max(total, offset + bytes);
    const position = placed.findIndex((other) => offsets[other]! > offset);
    if (position < 0) placed.push(index);
    else placed.splice(position, 0, index);
  }
  return { offsets, bytes: total };
}
