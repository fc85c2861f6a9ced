import type { TensorData } from "../base/dtype.ts";

/**
 * The contract between those who compute together and those who carry their data. A process group is one rank's
 * end of a set of ranks. `local` (ranks as tasks of one process over shared memory) and `mpi` implement it.
 *
 * Every method below is a collective: each rank of the group calls the same ones in the same order, with operands
 * of the same shapes; only `send` and `receive` pair up two ranks. A method starts at once and returns a promise:
 * awaiting it is waiting. Collectives of one group run one after another, those of different groups side by side.
 * Memory that was handed over may be neither written nor, where it receives, read until the promise is settled.
 *
 * Sums add the ranks' terms in the order of ranks, in float32 whatever the dtype, so that the same operands give
 * the same bits in every implementation, whatever the timing.
 *
 * Every call carries a fingerprint (sequence number, operation, shapes, dtype). Where the ranks' fingerprints differ,
 * where a rank is lost, or where one does not come within the timeout, every rank's calls, pending and later ones,
 * reject with a CommunicationError (`collective_mismatch`, `rank_lost`, `collective_timeout`) that names the rank
 * and the operation.
 */
export interface ProcessGroup {
  /** What errors and traces call it, such as "world" or "data". */
  readonly name: string;
  /** This rank's place in the group, from 0. */
  readonly rank: number;
  readonly size: number;
  /** The members' ranks in the world, ascending: `members[rank]` is this one's. */
  readonly members: readonly number[];

  /** Adds up each tensor over all ranks, in place. f32, bf16, f64 or i32. */
  allReduce(tensors: readonly TensorData[], options?: CollectiveOptions): Promise<void>;
  /** Sums each input over all ranks; rank i keeps part i, `size` times shorter, in the output. */
  reduceScatter(
    inputs: readonly TensorData[],
    outputs: readonly TensorData[],
    options?: CollectiveOptions,
  ): Promise<void>;
  /** Every rank's input, one after another, in every rank's output. */
  allGather(
    inputs: readonly TensorData[],
    outputs: readonly TensorData[],
    options?: CollectiveOptions,
  ): Promise<void>;
  /** Part i of each input goes to rank i; the output holds what came from each rank, in their order. */
  allToAll(
    inputs: readonly TensorData[],
    outputs: readonly TensorData[],
    options?: CollectiveOptions,
  ): Promise<void>;
  /** The same with parts of any length: `sendCounts[i]` elements go to rank i, `receiveCounts[i]` come from it. */
  allToAllVariable(
    input: TensorData,
    sendCounts: readonly number[],
    output: TensorData,
    receiveCounts: readonly number[],
    options?: CollectiveOptions,
  ): Promise<void>;
  /** Copies the tensors of rank `root` to all others. */
  broadcast(tensors: readonly TensorData[], root: number, options?: CollectiveOptions): Promise<void>;
  /** Sends to a rank of the group. The data are taken at once: it never waits for the receiver. */
  send(tensors: readonly TensorData[], peer: number, options?: CollectiveOptions): Promise<void>;
  /** Receives what `peer` sent, in the order in which it sent. */
  receive(tensors: readonly TensorData[], peer: number, options?: CollectiveOptions): Promise<void>;
  /** Settles when every rank has called it. */
  barrier(): Promise<void>;
  /** Every rank's bytes, in the order of ranks; lengths may differ. For what ranks must agree on, not for tensors. */
  exchange(bytes: Uint8Array): Promise<Uint8Array[]>;

  /**
   * A part of this group as a group of its own: a collective of the members listed (ranks of this group,
   * ascending). Groups of the same name and members are the same group.
   * @throws CommunicationError where this rank is not a member.
   */
  subgroup(name: string, members: readonly number[], link?: EmulatedLink): Promise<ProcessGroup>;
  /** Ends the group for every rank: their calls reject with a CommunicationError (`rank_lost`) that gives the reason. */
  abort(reason: string): void;
  /** What errors call the moment, such as "step 12". */
  setMoment(moment: string): void;
  /** Bytes that this rank sent in this group so far, and seconds during which its lane was busy. */
  traffic(): { readonly bytes: number; readonly seconds: number };
  /** What compiled programs take for collectives of this group; opaque to all but the native backend. */
  readonly native: unknown;
  /** Frees what the rank holds. A closed group cannot be used. */
  close(): void;
}

/** How to call a collective. */
export interface CollectiveOptions {
  /** What the data are, for errors, such as "gradients of model.layers.3". */
  readonly label?: string;
}

/** A link between ranks as the `local` group can pretend to have: every rank sends over one of its own. */
export interface EmulatedLink {
  /** Bytes a second. */
  readonly bandwidth: number;
  /** Seconds a message. */
  readonly latency: number;
}

/** What starts a set of ranks. */
export interface GroupOptions {
  /** Seconds after which a collective that a rank does not join ends all of them; 0 waits for ever. */
  readonly timeoutSeconds: number;
}
