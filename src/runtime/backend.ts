import type { DType, TensorData } from "../base/dtype.ts";
import type { QuantizedParameter } from "../base/quantized_format.ts";
import type { SymbolValues } from "../base/shape.ts";
import type { Pass } from "../compiler/pipeline.ts";
import type { TierOptions } from "../compiler/plan/tiers.ts";
import type { RecomputeSetting } from "../compiler/recompute_policy.ts";
import type { Graph } from "../graph/graph.ts";
import type { ProcessGroup } from "./group.ts";
import type { Store, StoreOptions } from "./store.ts";

/**
 * The contract between planned programs and those who run them. A backend takes a graph (see
 * compiler/compile.ts for the passes that come before) and gives an `Executable`. The reference backend
 * computes in float64, the native one in kernels, the null one not at all: it counts.
 */
export interface Backend {
  readonly name: "native" | "reference" | "null";
  /** Memory for a leaf or a result: zeroed, aligned as the backend's kernels like it. */
  allocate(dtype: DType, elements: number): TensorData;
  /**
   * Asks the machine now for memory that it hands out when it is first written, off the event loop; contents stay
   * as they are. Absent where there is nothing to ask for.
   */
  readonly populate?: (data: TensorData) => Promise<void>;
  /** Measures the arithmetic that the machine can do at best in a dtype, FLOP/s; absent where it means nothing. */
  readonly measurePeak?: (dtype: DType) => Promise<number>;
  /** Opens memory on disk in a folder; absent where there is nothing to run from it. Throws what a person can act on. */
  readonly openStore?: (folder: string, bytes: number, options?: StoreOptions) => Store;
  /** Prepares a graph to run. Throws what a person can act on where an op is not supported. */
  compile(graph: Graph, options?: CompileOptions): Executable;
}

/** How to compile. */
export interface CompileOptions {
  /** Which activations the backward pass computes again. Backends that keep everything ignore it. */
  readonly recompute?: RecomputeSetting;
  /** Tiles of tokens in which products between narrow values are computed (compiler/passes/tiling); 1 by default. */
  readonly tiles?: number;
  /** Parameters, by name, that are bound as packed quantized weights (u8) instead of floats. */
  readonly quantized?: ReadonlyMap<string, QuantizedParameter>;
  /** Further passes, after recomputation was chosen and before kernels are: what splits a program over ranks. */
  readonly passes?: readonly Pass[];
  /** The process groups of the graph's collectives, by `RankGroup.axes`. */
  readonly groups?: ReadonlyMap<string, ProcessGroup>;
  /** Leaves that lie in stores instead of memory; they are not bound. Backends without stores refuse it. */
  readonly tiers?: TierOptions;
  /** The stores that `tiers` names. */
  readonly stores?: ReadonlyMap<string, Store>;
}

/** How to run. */
export interface RunOptions {
  /** Stops at the first result that is not finite, with a RunError (`not_finite`) that names it. */
  readonly checkFinite?: boolean;
}

/** What a run took. */
export interface RunStatistics {
  readonly seconds: number;
  /** Seconds inside kernels; the rest is the interpreter's. */
  readonly kernelSeconds: number;
  /** Seconds in which nothing ran because collectives had not ended; absent where there is no such thing. */
  readonly waitSeconds?: number;
}

/** Memory by the name of the leaf or output it is bound to. */
export type Bindings = Readonly<Record<string, TensorData>>;

/** What a program needs, known before it runs. Bytes. */
export interface MemoryPlan {
  /** The arena for values that live inside a run. */
  readonly arena: number;
  /** What is prepared once from parameters and kept (packed weights). */
  readonly prepared: number;
  /** Constants that are part of the program. */
  readonly constants: number;
  /** Leaves and outputs that the caller binds. */
  readonly bound: number;
  /** Work space of kernels outside of the arena, over all threads. */
  readonly scratch: number;
}

/** A program with memory bound to it: what `Executable.run` does, without naming the memory again. */
export interface BoundExecutable {
  run(symbols?: SymbolValues, options?: RunOptions): Promise<RunStatistics>;
}

/** A graph that can be run. */
export interface Executable {
  readonly memory: MemoryPlan;
  /** Arithmetic of one run with every symbol at its bound. */
  readonly flops: number;
  /**
   * Runs the program off the event loop. Every leaf, and every output without a target, must be bound to
   * memory that is large enough; shapes come from `symbols`. Runs of one backend execute one after another.
   * @throws ShapeError for a binding that is missing or too small; RunError for a failure while running.
   */
  run(bindings: Bindings, symbols?: SymbolValues, options?: RunOptions): Promise<RunStatistics>;
  /**
   * Binds memory once for many runs: each must be large enough with every symbol at its bound.
   * @throws ShapeError for a binding that is missing or too small
   */
  bind(bindings: Bindings): BoundExecutable;
  /** Computes what depends on parameters alone again: call it after they changed. */
  invalidateParameters(): void;
  /** Frees native memory. A disposed executable cannot run. */
  dispose(): void;
}
