import { formatBytes } from "../../base/bytes.ts";
import type { DType } from "../../base/dtype.ts";
import { ConfigError } from "../../base/errors.ts";
import { align, type Lifetime, layOutArena } from "./arena.ts";
import { type MovedObject, planTransfers, type Stay, type Touch, type TransferPlan } from "./transfers.ts";

/** Where a leaf lies instead of in memory. */
export interface StoredLeaf {
  /** The name of a store. */
  readonly store: string;
  /** Its first byte there: a multiple of `transferAlignment`, so that it moves without a copy. */
  readonly offset: number;
  /** The dtype in which a parameter is stored, where it is not that of the leaf. */
  readonly dtype?: DType;
}

/** What of a program is in memory only while it is used. */
export interface TierOptions {
  /** Leaves by name; places may be shared by leaves that stand for the same bytes. */
  readonly leaves: ReadonlyMap<string, StoredLeaf>;
  /** Bytes that are read ahead of their use at most; 64 MiB by default. */
  readonly window?: number;
  /** Bytes that wait to be written at most; as many as `window` by default. */
  readonly writeWindow?: number;
  /**
   * Most bytes of the arena. What is needed again soonest then stays in it as long as there is room, and
   * activations go to `spill` where there is not.
   */
  readonly limit?: number;
  /** A stretch of a store for activations between their uses. */
  readonly spill?: SpillRegion;
}

/** Where activations go that are not kept in memory. */
export interface SpillRegion {
  readonly store: string;
  readonly offset: number;
  readonly bytes: number;
  /** Sends all there that wait long enough for their next use, whether a limit asks for it or not. */
  readonly always?: boolean;
}

/** Disks move whole blocks; memory that is aligned to them too is not copied. */
export const transferAlignment = 4096;

/** A leaf, or a block of the arena, that may be in a store between its uses. */
export interface TieredObject extends MovedObject {
  readonly store: string;
  readonly offset: number;
}

/** A block of the arena and the steps that touch it. */
export interface TouchedBlock {
  readonly bytes: number;
  readonly touches: readonly Touch[];
}

/** A program's blocks and stays with their places in the arena. */
export interface TieredLayout {
  readonly objects: readonly TieredObject[];
  readonly plan: TransferPlan;
  /** Where each stay lies in the arena, by its number. */
  readonly stayOffsets: readonly number[];
  /** Where each block lies; those that are spilled lie where their stays do. */
  readonly blockOffsets: readonly number[];
  /** The object that a spilled block became. */
  readonly spilled: ReadonlyMap<number, number>;
  readonly bytes: number;
}

const mebibyte = 2 ** 20;
const defaultWindow = 64 * mebibyte;
/** Between uses this close an object stays: the products of one layer's backward pass. */
const defaultGap = 16;
const windows = [256, 128, 64, 32, 16, 8, 4, 0].map((size) => size * mebibyte);

/**
 * Decides when leaves in stores are moved and where they lie meanwhile, and within a limit which activations go to
 * a store as well.
 * @throws ConfigError (`memory_limit_too_small`) with the smallest limit that would do.
 */
export function layOutTiers(
  program: string,
  leaves: readonly TieredObject[],
  blocks: readonly TouchedBlock[],
  steps: number,
  options: TierOptions,
): TieredLayout {
  const { limit, window = defaultWindow, writeWindow = window } = options;
  const candidates = spillCandidates(blocks, options);
  const always = options.spill?.always === true ? candidates : [];
  const attempt = (bytes: number, gap: number, spills = always): TieredLayout =>
    layOut(leaves, blocks, steps, options, {
      window: Math.min(bytes, window),
      writeWindow: Math.min(bytes, writeWindow),
      gap,
      spills,
    });
  const widest = Math.max(window, writeWindow);
  if (limit === undefined) return attempt(widest, defaultGap);
  for (const size of [widest, ...windows.filter((candidate) => candidate < widest)]) {
    let best = attempt(size, defaultGap);
    if (best.bytes > limit) continue;
    for (let gap = 2 * defaultGap; gap < 2 * steps; gap *= 2) {
      const longer = attempt(size, gap);
      if (longer.bytes > limit) break;
      best = longer;
    }
    return best;
  }
  let least = attempt(0, 1);
  if (least.bytes <= limit) return least;
  for (let low = 0, high = candidates.length, found: TieredLayout | undefined; ; ) {
    if (low >= high) {
      if (found !== undefined) return found;
      break;
    }
    const count = Math.floor((low + high) / 2) + 1;
    const next = attempt(limit / 16, 1, candidates.slice(0, count));
    if (next.bytes < least.bytes) least = next;
    if (next.bytes <= limit) [found, high] = [next, count - 1];
    else low = count;
  }
  throw new MemoryLimitError(program, least.bytes, Math.max(0, limit));
}

/** No plan of a program keeps the memory limit. */
export class MemoryLimitError extends ConfigError {
  /** Bytes of the arena with which there is one. */
  readonly leastBytes: number;

  constructor(program: string, leastBytes: number, limit: number) {
    super("memory_limit_too_small", `program ${program} does not fit in the memory limit`, {
      where: "memory.limit",
      expected: `at least ${formatBytes(leastBytes)} for what is alive at a time`,
      received: formatBytes(limit),
      hint: "raise the limit, lower train_micro_batch_size_per_gpu or the sequence length, or recompute activations",
    });
    this.leastBytes = leastBytes;
  }
}

/** Blocks worth spilling: the largest over the longest time first, as far as the stretch of the store reaches. */
function spillCandidates(blocks: readonly TouchedBlock[], { spill }: TierOptions): number[] {
  if (spill === undefined) return [];
  const longest = blocks.map(({ touches }) =>
    touches.reduce((most, { step }, index) => Math.max(most, step - (touches[index - 1]?.step ?? step)), 0),
  );
  const worth = (index: number): number => blocks[index]!.bytes * longest[index]!;
  const order = blocks
    .map((_, index) => index)
    .filter((index) => longest[index]! > defaultGap && blocks[index]!.bytes >= transferAlignment)
    .sort((a, b) => worth(b) - worth(a) || a - b);
  let bytes = 0;
  return order.filter((index) => {
    bytes += alignTransfer(blocks[index]!.bytes);
    return bytes <= spill.bytes;
  });
}

interface Choice {
  readonly window: number;
  readonly writeWindow: number;
  readonly gap: number;
  readonly spills: readonly number[];
}

function layOut(
  leaves: readonly TieredObject[],
  blocks: readonly TouchedBlock[],
  steps: number,
  { spill }: TierOptions,
  { spills, ...transfers }: Choice,
): TieredLayout {
  const objects = [...leaves];
  const spilled = new Map<number, number>();
  let offset = spill?.offset ?? 0;
  for (const block of spills) {
    const { bytes, touches } = blocks[block]!;
    spilled.set(block, objects.length);
    objects.push({ bytes, touches, persists: false, store: spill!.store, offset });
    offset += alignTransfer(bytes);
  }
  const plan = planTransfers(objects, steps, transfers);
  const place = new Map<number, number>();
  plan.sequence.forEach((entry, index) => {
    if (typeof entry === "number") place.set(entry, index);
  });
  const lifetimes: Lifetime[] = [];
  const blockLifetimes = blocks.map(({ bytes, touches }, index): number => {
    if (spilled.has(index)) return -1;
    const [first, last] = [touches[0]!.step, touches.at(-1)!.step];
    return lifetimes.push({ bytes, first: place.get(first)!, last: place.get(last)! }) - 1;
  });
  const stayLifetimes = plan.stays.map(
    ({ object, first, last }: Stay): number =>
      lifetimes.push({
        bytes: objects[object]!.bytes,
        first,
        last,
        alignment: transferAlignment,
      }) - 1,
  );
  const layout = layOutArena(lifetimes);
  return {
    objects,
    plan,
    stayOffsets: stayLifetimes.map((lifetime) => layout.offsets[lifetime]!),
    blockOffsets: blockLifetimes.map((lifetime) => (lifetime < 0 ? 0 : layout.offsets[lifetime]!)),
    spilled,
    bytes: align(layout.bytes),
  };
}

function alignTransfer(bytes: number): number {
  return Math.ceil(bytes / transferAlignment) * transferAlignment;
}
