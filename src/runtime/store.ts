import type { TensorData } from "../base/dtype.ts";

/**
 * Memory on disk for states that do not fit in memory. Contents are zero at first and gone when it is closed. Reads
 * run one after another on a lane of their own, in the order in which they were asked for, and so do writes; a read
 * that must see a write waits for it first.
 */
export interface Store {
  /** The folder whose disk holds it. */
  readonly folder: string;
  /** Bytes that it holds, a multiple of `storeAlignment`. */
  readonly bytes: number;
  /** Whether reads and writes go past the system's page cache. */
  readonly direct: boolean;
  /** Copies what lies from byte `offset` on into memory, which may not be touched until the promise is settled. */
  read(offset: number, into: TensorData): Promise<void>;
  /** Copies memory, which may not be written until the promise is settled, to byte `offset` and after. */
  write(offset: number, from: TensorData): Promise<void>;
  /** What was moved so far. */
  traffic(): StoreTraffic;
  /** Waits for what a program that failed has left under way. */
  drain(): void;
  /** What compiled programs know it by; opaque to all but its own backend. */
  readonly native: unknown;
  /** Gives the disk space back. Nothing that names the store can run afterwards. */
  close(): void;
}

/** What a store moved: seconds are those during which the lane was busy. */
export interface StoreTraffic {
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly readSeconds: number;
  readonly writeSeconds: number;
}

/** Bytes from one place of a store on. */
export interface StoreRegion {
  readonly store: Store;
  /** In bytes. */
  readonly offset: number;
}

/** How to open a store. */
export interface StoreOptions {
  /** Goes past the page cache where the file system takes that: true by default. */
  readonly direct?: boolean;
  /** Bytes of one read or write; 1 MiB by default. */
  readonly requestBytes?: number;
  /** Reads or writes of one thread under way, where they go past the page cache; 8 by default. */
  readonly queueDepth?: number;
  /** Threads that share each read or write; 1 by default. */
  readonly threads?: number;
}

/** Regions that begin at multiples of this many bytes move without a copy. */
export const storeAlignment = 4096;

/** `bytes` rounded up to where the next region of a store may begin. */
export function alignRegion(bytes: number): number {
  return Math.ceil(bytes / storeAlignment) * storeAlignment;
}

/** Bytes a second of a disk. */
export interface StoreBandwidth {
  readonly read: number;
  readonly write: number;
  /** Of both together, while one reads and the other writes. */
  readonly both: number;
}

/**
 * Measures how fast a store is by writing and reading its whole length, piece by piece; what it held is lost.
 * @param memory a buffer whose length is that of a piece, aligned as the backend allocates.
 */
export async function measureBandwidth(store: Store, memory: TensorData): Promise<StoreBandwidth> {
  const length = memory.byteLength;
  const pieces = Math.floor(store.bytes / length);
  const timed = async (move: (offset: number, index: number) => Promise<void>): Promise<number> => {
    const started = performance.now();
    const moves = Array.from({ length: pieces }, (_, index) => move(index * length, index));
    await Promise.all(moves);
    return (pieces * length * 1000) / (performance.now() - started);
  };
  // Space that was never written takes longer the first time.
  await timed(async (offset) => await store.write(offset, memory));
  const write = await timed(async (offset) => await store.write(offset, memory));
  const read = await timed(async (offset) => await store.read(offset, memory));
  const both = await timed(async (offset, index) =>
    index % 2 === 0 ? await store.read(offset, memory) : await store.write(offset, memory),
  );
  return { read, write, both };
}
