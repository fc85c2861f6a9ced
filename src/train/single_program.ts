import { modelFlops } from "../compiler/compile.ts";
import type { Pass } from "../compiler/pipeline.ts";
import type { RecomputeSetting } from "../compiler/recompute_policy.ts";
import type { Graph } from "../graph/graph.ts";
import type {
  Backend,
  Bindings,
  Executable,
  MemoryPlan,
  RunOptions,
  RunStatistics,
} from "../runtime/backend.ts";
import type { ProcessGroup } from "../runtime/group.ts";
import type { MicroBatchResult, MicroBatchRunner, TrainingBatch } from "./micro_batches.ts";
import type { Offload } from "./offload/states.ts";
import { accumulateGraph, evaluationGraph, type TrainedModel } from "./programs.ts";
import type { LocalProgram } from "./sharding.ts";

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
  /** Tiles of tokens in which MLPs are computed. */
  readonly tiles: number;
  /** The memory of parameters and gradients, by the names of their leaves. */
  readonly bindings: Bindings;
  /** What splits programs over the ranks that hold the same parameters; and the groups of its collectives. */
  readonly passes: readonly Pass[];
  readonly groups: ReadonlyMap<string, ProcessGroup>;
  /** What lies on disk of the parameters and gradients. */
  readonly offload?: Offload;
  /** What sharding makes of a recorded graph. */
  readonly shard: (graph: Graph, tiles?: number) => LocalProgram;
}

/** Runs every micro-batch as one program forward and backward. */
export class SingleProgramRunner implements MicroBatchRunner {
  readonly modelFlops: number;
  readonly #context: RunnerContext;
  readonly #train: CompiledProgram;
  #evaluate: CompiledProgram | undefined;
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
    return this.#train.executable.memory;
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
      const statistics = await this.#execute(this.#train, batch, factor, options);
      kernelSeconds += statistics.kernelSeconds;
      loss += this.#loss[0]!;
    }
    return { loss, kernelSeconds };
  }

  async evaluate(batch: TrainingBatch): Promise<number> {
    const { model, tokens } = this.#context;
    this.#evaluate ??= this.#compile(evaluationGraph(model, tokens));
    await this.#execute(this.#evaluate, batch, new Float32Array(1));
    return this.#loss[0]!;
  }

  releaseEvaluation(): void {
    this.#evaluate?.executable.dispose();
    this.#evaluate = undefined;
  }

  weightsChanged(): void {
    for (const program of [this.#train, this.#evaluate]) program?.executable.invalidateParameters();
  }

  dispose(): void {
    this.#train.executable.dispose();
    this.releaseEvaluation();
  }

  #compile(graph: Graph): CompiledProgram {
    const { backend, recompute, tiles, passes, groups, shard, offload } = this.#context;
    const local = shard(graph, tiles);
    const options = { recompute, tiles, passes, groups, ...offload };
    return { local, executable: backend.compile(local.graph, options) };
  }

  #execute(
    { local, executable }: CompiledProgram,
    batch: TrainingBatch,
    weight: Float32Array,
    options: RunOptions = {},
  ): Promise<RunStatistics> {
    const { leaves, symbols } = local.bind(batch);
    return executable.run(
      { ...this.#context.bindings, loss: this.#loss, weight, ...leaves },
      symbols,
      options,
    );
  }
}

/** A rank's program, ready to run. */
interface CompiledProgram {
  readonly local: LocalProgram;
  readonly executable: Executable;
}
