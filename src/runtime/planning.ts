import type { SymbolValues } from "../base/shape.ts";
import type { Graph } from "../graph/graph.ts";
import type { Backend, CompileOptions, Executable } from "./backend.ts";

/** A link between ranks. */
export interface Link {
  /** Bytes a second that a rank sends. */
  readonly bandwidth: number;
  /** Seconds a message. */
  readonly latency: number;
}

/** What a machine does at its best, measured or from a data sheet. */
export interface Machine {
  /** Multiply-adds count twice. Operations a second of products in the dtype of training. */
  readonly flops: number;
  /** Bytes a second between memory and the processor. */
  readonly bandwidth: number;
  /** The links of process groups, by the axes that they span; those of groups that are not listed cost nothing. */
  readonly links?: ReadonlyMap<string, Link>;
}

/** What a run passes to other ranks, by the axes of the group. */
export type CommunicationCost = ReadonlyMap<string, { readonly bytes: number; readonly messages: number }>;

/** Where the time of a run goes. */
export interface RunTime {
  readonly seconds: number;
  /** Seconds of kernels. */
  readonly compute: number;
  /** Seconds of collectives, by axes, whether or not kernels run meanwhile. */
  readonly communication: ReadonlyMap<string, number>;
  /** Seconds during which kernels wait for collectives. */
  readonly exposed: number;
}

/** Bytes that a run moves between memory and disk. */
export interface DiskTraffic {
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** What one run of a program takes. */
export interface RunCost {
  /** Arithmetic operations, recomputation included. */
  readonly flops: number;
  /** Bytes read and written, as if every operand of every step came from memory. */
  readonly bytes: number;
}

/** A program that is planned and counted, not run. */
export interface PlannedExecutable extends Executable {
  /** @param symbols sizes of the run; every symbol at its bound by default. */
  cost(symbols?: SymbolValues): RunCost;
  /**
   * Seconds of one run where each step takes as long as its arithmetic or its memory traffic, whichever is
   * longer (Williams et al., "Roofline", CACM 2009): a lower bound that good kernels come near. Collectives as `time`.
   */
  seconds(machine: Machine, symbols?: SymbolValues): number;
  /** What the run's collectives send. */
  communication(symbols?: SymbolValues): CommunicationCost;
  /** What the run reads from and writes to stores on disk. */
  diskTraffic(): DiskTraffic;
  /**
   * The same with collectives on lanes of their own: each starts where the program starts it, when the group's
   * collectives before it are done, and holds up the first kernel that reads its results.
   */
  time(machine: Machine, symbols?: SymbolValues): RunTime;
}

/** A backend that plans without memory or kernels. */
export interface PlanningBackend extends Backend {
  readonly name: "null";
  compile(graph: Graph, options?: CompileOptions): PlannedExecutable;
}
