import type { Bindings, MemoryPlan, RunOptions } from "../runtime/backend.ts";
import type { InterleavedUpdates } from "./offload/interleave.ts";

/** A packed micro-batch, as `data/` makes it. */
export interface TrainingBatch {
  readonly tokens: Int32Array;
  /** -1 where there is nothing to learn. */
  readonly targets: Int32Array;
  readonly positions: Int32Array;
  readonly offsets: Int32Array;
  /** How many targets are not -1. */
  readonly targetCount: number;
}

/** What the micro-batches of a step came to on this rank. */
export interface MicroBatchResult {
  /** The sum of the losses of the targets that this rank computed: 0 where it computes no loss. */
  readonly loss: number;
  /** Seconds inside kernels. */
  readonly kernelSeconds: number;
}

/** What goes from one program of a step to another, where a rank runs several a micro-batch. */
export interface BetweenPrograms {
  /** Bytes of memory for values that wait for the program that reads them. */
  readonly heldBytes: number;
  /** What each micro-batch sends from this rank's stages to those of other ranks. */
  readonly sent: readonly {
    readonly from: number;
    readonly to: number;
    readonly bytes: number;
    readonly messages: number;
  }[];
}

/** How to run the micro-batches of a step. */
export interface MicroBatchOptions extends RunOptions {
  /** Called before the last micro-batch where it updates parameters; gives the optimizer's hyperparameters. */
  readonly beforeUpdates?: () => Promise<Bindings>;
}

/**
 * Computes the gradients of a step's micro-batches on one rank: as one program forward and backward, or as a
 * schedule of a pipeline's stages. The engine owns the memory of parameters and gradients and binds it.
 */
export interface MicroBatchRunner {
  /** What the programs need beside the engine's buffers. */
  readonly memory: MemoryPlan;
  /** What its programs pass on in a step of so many micro-batches; absent where one program does all. */
  between?(microBatches: number): BetweenPrograms;
  /** Model FLOPs of one micro-batch over all ranks that share it: recomputation not counted. */
  readonly modelFlops: number;
  /**
   * Forward and backward of this rank's micro-batches, in order; gradients are those of the sum of losses times
   * `weight`, summed over the micro-batches and the ranks.
   * @param options `checkFinite` stops at the first result that is not finite
   */
  run(
    batches: readonly TrainingBatch[],
    weight: number,
    options?: MicroBatchOptions,
  ): Promise<MicroBatchResult>;
  /**
   * Lets the last micro-batch of every step from now on update parameters as well; absent where that cannot be.
   * `run` must then be given `beforeUpdates`.
   */
  interleave?(updates: InterleavedUpdates): void;
  /** The summed loss of a batch without gradients, as `run` gives it. */
  evaluate(batch: TrainingBatch): Promise<number>;
  /** Frees the evaluation program until it is needed again. */
  releaseEvaluation(): void;
  /** Must be called after weights changed. */
  weightsChanged(): void;
  /** Frees native memory; the runner cannot be used afterwards. */
  dispose(): void;
}
