import type { DType, TensorData } from "../base/dtype.ts";
import { RunError } from "../base/errors.ts";
import { modelFlops } from "../compiler/compile.ts";
import type { RecomputeSetting } from "../compiler/recompute_policy.ts";
import type { LanguageModel } from "../models/family.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import type { Backend, Executable } from "../runtime/backend.ts";
import { layOutParameters, type ParameterLayout, viewOfParameter } from "./layout.ts";
import { LossScale, type LossScaleSettings } from "./loss_scale.ts";
import type { TrainingBatch } from "./micro_batches.ts";
import {
  accumulateGraph,
  clearGraph,
  evaluationGraph,
  gradientName,
  initializeGraph,
  normGraph,
  type TrainedModel,
  updateGraph,
} from "./programs.ts";

/** How an engine trains. */
export interface EngineOptions {
  readonly backend: Backend;
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
  /** Activations: "f32", "bf16", or "f16" with loss scaling. Weights and their updates are float32. */
  readonly dtype: DType;
  readonly optimizer: Optimizer;
  /** Tokens of a micro-batch. */
  readonly microBatchTokens: number;
  /** Rows of a micro-batch, for counting the arithmetic of attention. */
  readonly microBatchRows: number;
  /** Micro-batches of an update; decides whether gradients must be added. */
  readonly accumulationSteps: number;
  /** The largest gradient norm; 0 does not clip. */
  readonly gradientClipping: number;
  readonly decays: (name: string) => boolean;
  readonly isFrozen: (name: string) => boolean;
  readonly recompute: RecomputeSetting;
  /** Loss scaling, for "f16". */
  readonly lossScale?: LossScaleSettings;
}

/** What one step did. */
export interface StepResult {
  /** Mean loss of the step's targets, in nats. */
  readonly loss: number;
  /** Norm of the whole gradient before clipping. */
  readonly gradientNorm: number;
  /** Whether the update was skipped because scaled gradients overflowed. */
  readonly skipped: boolean;
  readonly seconds: number;
  /** Seconds inside kernels. */
  readonly kernelSeconds: number;
}

/** Hyperparameters of one step. */
export interface StepSettings {
  readonly learningRate: number;
  readonly momentum?: number | undefined;
}

/**
 * Trains a model: owns its float32 weights, gradients and optimizer states as flat buffers, and the programs
 * that work on them. Knows nothing of data, files or schedules.
 */
export class TrainingEngine {
  readonly layout: ParameterLayout;
  readonly lossScale: LossScale | undefined;
  readonly #options: EngineOptions;
  readonly #weights: Float32Array;
  readonly #gradients: Float32Array;
  readonly #states: ReadonlyMap<string, Float32Array>;
  readonly #bindings: Record<string, TensorData>;
  readonly #train: Executable;
  readonly #clear: Executable | undefined;
  readonly #norm: Executable;
  readonly #update: Executable;
  #evaluate: Executable | undefined;
  readonly #loss: Float32Array;
  #updates = 0;

  constructor(options: EngineOptions) {
    const { backend, parameters, optimizer, recompute, microBatchTokens: tokens } = options;
    this.#options = options;
    this.layout = layOutParameters(parameters, options.decays, options.isFrozen);
    this.lossScale = options.lossScale === undefined ? undefined : new LossScale(options.lossScale);
    const flat = (elements: number): Float32Array => backend.allocate("f32", elements) as Float32Array;
    this.#weights = flat(this.layout.total);
    this.#gradients = flat(this.layout.trained);
    this.#states = new Map(optimizer.states.map((name) => [name, flat(this.layout.trained)]));
    this.#loss = flat(1);
    this.#bindings = this.#collectBindings();
    const model = this.#model;
    // With several micro-batches every one adds to gradients that were cleared: one program then holds the
    // packed weights once.
    const accumulates = options.accumulationSteps > 1;
    const graph = accumulateGraph(model, tokens, accumulates);
    this.modelFlops = modelFlops(graph, { tokens, offsets: options.microBatchRows + 1 });
    this.#train = backend.compile(graph, { recompute });
    if (accumulates) this.#clear = backend.compile(clearGraph(this.layout));
    this.#norm = backend.compile(normGraph(this.layout));
    this.#update = backend.compile(updateGraph(this.layout, optimizer));
  }

  /** Optimizer updates applied so far. */
  get updates(): number {
    return this.#updates;
  }

  /** Model FLOPs of one micro-batch: forward and backward, recomputation not counted. */
  readonly modelFlops: number;

  /** What the training program needs beside the buffers. */
  get memory(): Executable["memory"] {
    return this.#train.memory;
  }

  /** The values of every parameter, by name: views that change as training goes on. */
  get weights(): Map<string, Float32Array> {
    const { parameters } = this.#options;
    const views = new Map<string, Float32Array>();
    for (const name of parameters.keys())
      views.set(name, viewOfParameter(this.#weights, this.layout, parameters, name));
    return views;
  }

  /** The flat buffers by name: what a checkpoint saves, and what the planner counted. */
  get buffers(): ReadonlyMap<string, Float32Array> {
    return new Map([["parameters", this.#weights], ["gradients", this.#gradients], ...this.#states]);
  }

  /** Names of the optimizer's buffers. */
  get stateNames(): readonly string[] {
    return this.#options.optimizer.states;
  }

  /** The optimizer's buffer `state` for one parameter; undefined for a frozen one. */
  stateOf(state: string, parameter: string): Float32Array | undefined {
    if (this.layout.frozen.has(parameter)) return undefined;
    return viewOfParameter(this.#states.get(state)!, this.layout, this.#options.parameters, parameter);
  }

  /** Gives every parameter its initial value. */
  async initialize(seed: number): Promise<void> {
    const { backend, parameters } = this.#options;
    const executable = backend.compile(initializeGraph(parameters));
    await executable.run({ ...this.#bindings, seed: Int32Array.of(seed, 0) });
    executable.dispose();
    this.weightsChanged();
  }

  /**
   * Looks at every weight, with pauses for other work.
   * @throws RunError (`not_finite`) naming the first parameter that holds NaN or infinity.
   */
  async requireFiniteWeights(): Promise<void> {
    for (const [name, values] of this.weights) {
      for (let start = 0; start < values.length; start += scannedAtOnce) {
        if (!allFinite(values.subarray(start, start + scannedAtOnce))) {
          throw new RunError("not_finite", "a parameter holds values that are not finite (NaN or infinity)", {
            where: `${name}, after ${this.#updates} updates`,
            hint: "lower the learning rate or clip gradients; go back to an earlier checkpoint, or to a model file that is whole",
          });
        }
        if (start + scannedAtOnce < values.length) await new Promise((resolve) => setImmediate(resolve));
      }
    }
  }

  /** Must be called after weights were written from outside. */
  weightsChanged(): void {
    for (const executable of [this.#train, this.#evaluate]) executable?.invalidateParameters();
  }

  /** Continues from a checkpoint: the caller has filled the buffers. */
  restored(updates: number): void {
    this.#updates = updates;
    this.weightsChanged();
  }

  /**
   * One optimizer step over micro-batches. The loss is the mean over all targets of all of them.
   * @throws RunError (`not_finite`) naming the first tensor that was not finite, where the loss or the gradient
   * is not; the weights are then as before the step.
   */
  async step(batches: readonly TrainingBatch[], settings: StepSettings): Promise<StepResult> {
    const started = performance.now();
    const targets = batches.reduce((sum, batch) => sum + batch.targetCount, 0);
    const scale = this.lossScale?.scale ?? 1;
    const weight = Float32Array.of(targets === 0 ? 0 : scale / targets);
    let loss = 0;
    let kernelSeconds = 0;
    if (this.#clear !== undefined) kernelSeconds += (await this.#clear.run(this.#bindings)).kernelSeconds;
    for (const batch of batches) {
      const statistics = await this.#train.run(this.#batchBindings(batch, weight), symbolsOf(batch));
      kernelSeconds += statistics.kernelSeconds;
      loss += this.#loss[0]!;
      if (!Number.isFinite(loss)) await this.#explain(batch, weight);
    }
    const { norm: scaledNorm, seconds } = await this.#gradientNorm();
    kernelSeconds += seconds;
    const gradientNorm = scaledNorm / scale;
    const finite = Number.isFinite(gradientNorm);
    if (finite) {
      kernelSeconds += await this.#applyUpdate(settings, gradientNorm, scale);
      this.lossScale?.succeeded();
    } else if (this.lossScale === undefined || this.lossScale.exhausted) {
      for (const batch of batches) await this.#explain(batch, weight);
    } else {
      this.lossScale.overflowed();
    }
    return {
      loss: targets === 0 ? 0 : loss / targets,
      gradientNorm,
      skipped: !finite,
      seconds: (performance.now() - started) / 1000,
      kernelSeconds,
    };
  }

  /** The summed loss of a batch, without gradients. */
  async evaluate(batch: TrainingBatch): Promise<number> {
    this.#evaluate ??= this.#options.backend.compile(
      evaluationGraph(this.#model, this.#options.microBatchTokens),
    );
    await this.#evaluate.run(this.#batchBindings(batch, new Float32Array(1)), symbolsOf(batch));
    return this.#loss[0]!;
  }

  /** Frees the evaluation program until it is needed again. */
  releaseEvaluation(): void {
    this.#evaluate?.dispose();
    this.#evaluate = undefined;
  }

  /** Frees native memory; the engine cannot be used afterwards. */
  dispose(): void {
    for (const executable of [this.#train, this.#clear, this.#norm, this.#update, this.#evaluate])
      executable?.dispose();
  }

  get #model(): TrainedModel {
    const { language, parameters, dtype } = this.#options;
    return { language, parameters, layout: this.layout, dtype };
  }

  #collectBindings(): Record<string, TensorData> {
    const { parameters } = this.#options;
    const bindings: Record<string, TensorData> = { loss: this.#loss };
    for (const name of parameters.keys()) {
      bindings[name] = viewOfParameter(this.#weights, this.layout, parameters, name);
      if (this.layout.frozen.has(name)) continue;
      bindings[gradientName(name)] = viewOfParameter(this.#gradients, this.layout, parameters, name);
    }
    for (const { name, start, length } of this.layout.groups) {
      bindings[`parameters ${name}`] = this.#weights.subarray(start, start + length);
      bindings[`gradients ${name}`] = this.#gradients.subarray(start, start + length);
      for (const [state, buffer] of this.#states)
        bindings[`${state} ${name}`] = buffer.subarray(start, start + length);
    }
    return bindings;
  }

  #batchBindings(batch: TrainingBatch, weight: Float32Array): Record<string, TensorData> {
    const { tokens, targets, positions, offsets } = batch;
    return { ...this.#bindings, tokens, targets, positions, offsets, weight };
  }

  async #gradientNorm(): Promise<{ norm: number; seconds: number }> {
    const sums = Object.fromEntries(this.layout.groups.map(({ name }) => [name, new Float32Array(1)]));
    const { kernelSeconds } = await this.#norm.run({ ...this.#bindings, ...sums });
    const total = Object.values(sums).reduce((sum, squares) => sum + squares[0]!, 0);
    return { norm: Math.sqrt(total), seconds: kernelSeconds };
  }

  async #applyUpdate(settings: StepSettings, gradientNorm: number, scale: number): Promise<number> {
    const { gradientClipping: limit, optimizer } = this.#options;
    const clip = limit > 0 && gradientNorm > limit ? limit / (gradientNorm + 1e-6) : 1;
    const bindings = { ...this.#bindings };
    for (const { name, decay } of this.layout.groups) {
      const context = { ...settings, update: this.#updates + 1, decay, gradientScale: clip / scale };
      bindings[`hyper ${name}`] = Float32Array.from(optimizer.hyper(context));
    }
    const { kernelSeconds } = await this.#update.run(bindings);
    this.#updates++;
    this.weightsChanged();
    return kernelSeconds;
  }

  /** Runs a batch again, looking at every result, to name the first that is not finite. */
  async #explain(batch: TrainingBatch, weight: Float32Array): Promise<void> {
    if (this.lossScale !== undefined && !this.lossScale.exhausted) return;
    await this.requireFiniteWeights();
    // What an earlier batch left in the gradients would hide where it began.
    if (this.#clear !== undefined) await this.#clear.run(this.#bindings);
    await this.#train.run(this.#batchBindings(batch, weight), symbolsOf(batch), { checkFinite: true });
    throw new RunError("not_finite", "the gradient's norm is not finite, though each gradient is", {
      where: `update ${this.#updates + 1}`,
      hint: "lower the learning rate, or clip gradients",
    });
  }
}

/** Weights looked at between pauses: about a millisecond. */
const scannedAtOnce = 2 ** 20;

function allFinite(values: Float32Array): boolean {
  for (let index = 0; index < values.length; index++) if (!Number.isFinite(values[index]!)) return false;
  return true;
}

function symbolsOf(batch: TrainingBatch): { tokens: number; offsets: number } {
  return { tokens: batch.tokens.length, offsets: batch.offsets.length };
}
