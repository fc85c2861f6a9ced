import type { TensorData } from "../base/dtype.ts";
import { modelFlops } from "../compiler/compile.ts";
import type { Pass } from "../compiler/pipeline.ts";
import type { RecomputeSetting } from "../compiler/recompute_policy.ts";
import type { Graph } from "../graph/graph.ts";
import type { Backend, Bindings, Executable, MemoryPlan, RunOptions } from "../runtime/backend.ts";
import type { ProcessGroup } from "../runtime/group.ts";
import type { MicroBatchResult, MicroBatchRunner, TrainingBatch } from "./micro_batches.ts";
import type { Offload } from "./offload/states.ts";
import { accumulateGraph, evaluationGraph, type TrainedModel } from "./programs.ts";

/** What a runner of micro-batches gets from the engine. */
export interface RunnerContext {
  readonly backend: Backend;
  readonly model: TrainedModel;
  /** Tokens and rows of a micro-batch. */
  readonly tokens: number;
  readonly rows: number;
  /** Whether gradients are added to what was cleared before, or overwrite it: there is one micro-batch a step. */
  readonly accumulates: boolean;
  readonly recompute: RecomputeSetting;
  /** The memory of parameters and gradients, by the names of their leaves. */
  readonly bindings: Bindings;
  /** What splits programs over the ranks that hold the same parameters; and the groups of its collectives. */
  readonly passes: readonly Pass[];
  readonly groups: ReadonlyMap<string, ProcessGroup>;
  /** What lies on disk of the parameters and gradients. */
  readonly offload?: Offload;
  /** What sharding makes of a recorded graph. */
  readonly shard: (graph: Graph) => Graph;
}

/** Runs every micro-batch as one program forward and backward. */
export class SingleProgramRunner implements MicroBatchRunner {
  readonly modelFlops: number;
  readonly #context: RunnerContext;
  readonly #train: Executable;
  #evaluate: Executable | undefined;
  readonly #loss: Float32Array;

  constructor(context: RunnerContext) {
    const { backend, model, tokens, rows, accumulates } = context;
    this.#context = context;
    const graph = accumulateGraph(model, tokens, accumulates);
    this.modelFlops = modelFlops(graph, { tokens, offsets: rows + 1 });
    this.#train = this.#compile(graph);
    this.#loss = backend.allocate("f32", 1) as Float32Array;
  }

  get memory(): MemoryPlan {
    return this.#train.memory;
  }

  async run(
    batches: readonly TrainingBatch[],
    weight: number,
    options: RunOptions = {},
  ): Promise<MicroBatchResult> {
    let loss = 0;
    let kernelSeconds = 0;
    const factor = Float32Array.of(weight);
    for (const batch of batches) {
      const statistics = await this.#train.run(this.#bind(batch, factor), symbolsOf(batch), options);
      kernelSeconds += statistics.kernelSeconds;
      loss += this.#loss[0]!;
    }
    return { loss, kernelSeconds };
  }

  async evaluate(batch: TrainingBatch): Promise<number> {
    const { model, tokens } = this.#context;
    this.#evaluate ??= this.#compile(evaluationGraph(model, tokens));
    await this.#evaluate.run(this.#bind(batch, new Float32Array(1)), symbolsOf(batch));
    return this.#loss[0]!;
  }

  releaseEvaluation(): void {
    this.#evaluate?.dispose();
    this.#evaluate = undefined;
  }

  weightsChanged(): void {
    for (const executable of [this.#train, this.#evaluate]) executable?.invalidateParameters();
  }

  dispose(): void {
    this.#train.dispose();
    this.releaseEvaluation();
  }

  #compile(graph: Graph): Executable {
    const { backend, recompute, passes, groups, shard, offload } = this.#context;
    return backend.compile(shard(graph), { recompute, passes, groups, ...offload });
  }

  #bind(batch: TrainingBatch, weight: Float32Array): Record<string, TensorData> {
    const { tokens, targets, positions, offsets } = batch;
    return { ...this.#context.bindings, loss: this.#loss, tokens, targets, positions, offsets, weight };
  }
}

function symbolsOf(batch: TrainingBatch): { tokens: number; offsets: number } {
  return { tokens: batch.tokens.length, offsets: batch.offsets.length };
}
