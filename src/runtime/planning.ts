import type { SymbolValues } from "../base/shape.ts";
import type { Graph } from "../graph/graph.ts";
import type { Backend, CompileOptions, Executable } from "./backend.ts";

/** What a machine does at its best, measured or from a data sheet. */
export interface Machine {
  /** Multiply-adds count twice. Operations a second of products in the dtype of training. */
  readonly flops: number;
  /** Bytes a second between memory and the processor. */
  readonly bandwidth: number;
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
   * longer (Williams et al., "Roofline", CACM 2009): a lower bound that good kernels come near.
   */
  seconds(machine: Machine, symbols?: SymbolValues): number;
}

/** A backend that plans without memory or kernels. */
export interface PlanningBackend extends Backend {
  readonly name: "null";
  compile(graph: Graph, options?: CompileOptions): PlannedExecutable;
}
