import type { DType, TensorData } from "../base/dtype.ts";
import { InternalError, RunError } from "../base/errors.ts";
import type { StatePiece } from "../base/pieces.ts";
import { elementCount } from "../base/shape.ts";
import type { RecomputeSetting } from "../compiler/recompute_policy.ts";
import type { LanguageModel } from "../models/family.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import {
  isFirstReplica,
  isShared,
  keptElements,
  keptRange,
  ownStart,
  type Share,
} from "../parallel/zero/partition.ts";
import { partitionStates, residualName } from "../parallel/zero/pass.ts";
import { defaultZeroSettings, type ZeroSettings } from "../parallel/zero/settings.ts";
import type { Backend, Bindings, Executable, MemoryPlan } from "../runtime/backend.ts";
import type { StoreTraffic } from "../runtime/store.ts";
import { sumOverRanks } from "./agreement.ts";
import {
  layOutParameters,
  type ModelSplit,
  type ParameterLayout,
  type PlacedParameter,
  sweepOf,
  wholeModel,
} from "./layout.ts";
import { LossScale, type LossScaleSettings } from "./loss_scale.ts";
import type { BetweenPrograms, MicroBatchResult, MicroBatchRunner, TrainingBatch } from "./micro_batches.ts";
import { Interleaver, type InterleaveSetting, type MicroBatchMeasure } from "./offload/interleaver.ts";
import type { OffloadSettings } from "./offload/settings.ts";
import { States, tieredAlignment } from "./offload/states.ts";
import {
  clearGraph,
  copyGraph,
  gradientName,
  initializeGraph,
  normGraph,
  type SquaredStretch,
  updateGraph,
} from "./programs.ts";
import type { Rank } from "./rank.ts";
import { createSharding, type ProgramSharding, wholeProgram } from "./sharding.ts";
import { type RunnerContext, SingleProgramRunner } from "./single_program.ts";
import { assembleParameter, forEachRun } from "./state_pieces.ts";

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
  /** Tiles of tokens in which MLPs are computed, with less memory (compiler/passes/tiling); 1 by default. */
  readonly tiles?: number;
  /** Loss scaling, for "f16". */
  readonly lossScale?: LossScaleSettings;
  /** This rank, where several train together; each gets its own batches. */
  readonly rank?: Rank;
  /** How states are partitioned over ranks; not at all by default. */
  readonly zero?: ZeroSettings;
  /** How programs are split over the tensor and sequence axes; as the model says by default. */
  readonly sharding?: ProgramSharding;
  /** What of the states lies on disk; nothing by default. */
  readonly offload?: OffloadSettings;
  /** Whether sub-groups are updated during backward, where no clipping or loss scaling needs the whole gradient first. */
  readonly interleave?: InterleaveSetting;
  /** What runs micro-batches; one program forward and backward by default. */
  readonly createRunner?: (context: RunnerContext) => MicroBatchRunner;
}

/** Bytes of a rank's buffers by what they hold. */
export interface StateBytes {
  readonly parameters: number;
  readonly gradients: number;
  readonly optimizer: number;
  /** What quantized gradients did not send yet. */
  readonly residuals: number;
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
 * that update them. Of several ranks each has an engine, and their methods marked as collectives are called by all of
 * them. Knows nothing of data, files or schedules.
 */
export class TrainingEngine {
  readonly layout: ParameterLayout;
  readonly lossScale: LossScale | undefined;
  readonly #options: EngineOptions;
  readonly #split: ModelSplit;
  readonly #states: States;
  readonly #residuals: Float32Array;
  readonly #residualBytes: number;
  readonly #bindings: Record<string, TensorData>;
  readonly #runner: MicroBatchRunner;
  readonly #clear: Executable | undefined;
  readonly #copy: Executable | undefined;
  readonly #norm: Executable;
  readonly #interleaver: Interleaver;
  /** Updates what the last micro-batch does not. */
  #update: Executable | undefined;
  readonly #squared: readonly SquaredStretch[];
  #updates = 0;
  /** Steps that this engine has run while interleaving was undecided, and what the last one took. */
  #steps = 0;
  #measure: MicroBatchMeasure | undefined;
  /** Awaited before parameters and states change: for what still reads them. */
  beforeUpdate: (() => Promise<void>) | undefined;
  #copied = false;

  constructor(options: EngineOptions) {
    const { backend, language, parameters, optimizer, rank, dtype } = options;
    const zero = options.zero ?? defaultZeroSettings;
    this.#options = options;
    const whole = wholeModel(parameters, rank?.mesh, zero);
    const { offload } = options;
    const sharding =
      options.sharding ?? (rank && createSharding(parameters, language.sharding ?? [], rank.mesh));
    this.#split = { ...whole, locals: sharding?.locals ?? whole.locals };
    this.layout = layOutParameters(parameters, options.decays, options.isFrozen, this.#split, {
      ...(offload === undefined ? {} : { alignment: tieredAlignment, longestSweep: offload.subGroup }),
    });
    this.lossScale = options.lossScale === undefined ? undefined : new LossScale(options.lossScale);
    this.#states = new States(backend, this.layout.elements, optimizer.states, offload);
    const residuals = zero.quantizedGradients === true ? this.#residualElements() : 0;
    this.#residuals = backend.allocate("f32", residuals) as Float32Array;
    this.#residualBytes = residuals * 4;
    this.#squared = this.#chooseSquared();
    this.#placeLeaves();
    this.#bindings = this.#states.bindings;
    const stateOffload = this.#states.offload;
    // With several micro-batches every one adds to gradients that were cleared: one program then holds the
    // packed weights once.
    const accumulates = options.accumulationSteps > 1;
    const groups = rank?.groups ?? new Map();
    const createRunner =
      options.createRunner ?? ((context: RunnerContext) => new SingleProgramRunner(context));
    this.#runner = createRunner({
      backend,
      model: { language, parameters, layout: this.layout, dtype },
      tokens: options.microBatchTokens,
      rows: options.microBatchRows,
      accumulates,
      recompute: options.recompute,
      tiles: options.tiles ?? 1,
      bindings: this.#bindings,
      passes: this.#passes(zero),
      groups,
      shard: sharding?.shard ?? wholeProgram,
      offload: this.#states.computeOffload,
    });
    if (accumulates) this.#clear = backend.compile(clearGraph(this.#cleared), stateOffload);
    this.#norm = backend.compile(normGraph(this.#squared), stateOffload);
    if (this.#states.keepsHalves) this.#copy = backend.compile(copyGraph(this.layout), stateOffload);
    // Other backends do not run steps in order on the memory that leaves name.
    const afterwards =
      options.gradientClipping > 0 || options.lossScale !== undefined || backend.name !== "native";
    this.#interleaver = new Interleaver({
      ...{
        runner: this.#runner,
        layout: this.layout,
        optimizer,
        states: this.#states,
        rank,
        accumulates,
        offload,
      },
      setting: afterwards ? "never" : (options.interleave ?? "never"),
      bucket: this.#gatherBucket,
    });
    this.#compileUpdate();
  }

  /** The program of all updates that the last micro-batch does not make. */
  #compileUpdate(): void {
    const { backend, optimizer, rank } = this.#options;
    const sweeps = this.#interleaver.remainingSweeps;
    for (const sweep of sweeps) this.#states.placeSweep(sweep);
    this.#update?.dispose();
    this.#update = undefined;
    if (sweeps.length === 0) return;
    const graph = updateGraph({ sweeps }, optimizer, this.#gatherBucket, this.#states.keepsHalves);
    const groups = rank?.groups ?? new Map();
    this.#update = backend.compile(graph, { groups, ...this.#states.offload });
  }

  /** Elements that one collective gathers after updates. */
  get #gatherBucket(): number {
    const bucket = this.#options.zero?.gatherBucket ?? defaultZeroSettings.gatherBucket;
    return bucket === "auto" ? gatheredAfterUpdate : bucket;
  }

  /** Parameters that the last micro-batch of a step updates: none before a cost model has decided. */
  get interleaved(): ReadonlySet<string> {
    return this.#interleaver.chosen;
  }

  /** Optimizer updates applied so far. */
  get updates(): number {
    return this.#updates;
  }

  /** Model FLOPs of one micro-batch: forward and backward, recomputation not counted. */
  get modelFlops(): number {
    return this.#runner.modelFlops;
  }

  /** What the training program needs beside the buffers. */
  get memory(): MemoryPlan {
    return this.#runner.memory;
  }

  /** What the programs of a step pass on; undefined where one program does all. */
  get between(): BetweenPrograms | undefined {
    return this.#runner.between?.(this.#options.accumulationSteps);
  }

  /** Whether parameters or states lie on disk. */
  get hasStatesOnDisk(): boolean {
    return this.#states.hasBuffersOnDisk;
  }

  /** Bytes of this rank's buffers, padding included. */
  get stateBytes(): StateBytes {
    return this.#bytesBy(() => true);
  }

  /** Those of them that are in memory; all the others are on disk. */
  get residentBytes(): StateBytes {
    return this.#bytesBy((kind) => !this.#states.isOnDisk(kind));
  }

  /** Bytes of disk that the rank takes. */
  get diskBytes(): number {
    return this.#states.store?.bytes ?? 0;
  }

  /** The flat buffers that are in memory, by name. */
  get buffers(): ReadonlyMap<string, Float32Array> {
    return this.#states.buffers;
  }

  /** What was read from and written to disk so far; undefined where nothing is there. */
  get diskTraffic(): StoreTraffic | undefined {
    return this.#states.store?.traffic();
  }

  /**
   * The values of every parameter, by name: views that change as training goes on.
   * @throws InternalError where this rank does not hold every parameter whole: see `pieces` and `gatherParameter`.
   */
  get weights(): Map<string, Float32Array> {
    return new Map([...this.#options.parameters.keys()].map((name) => [name, this.#wholeParameter(name)]));
  }

  /** What this rank keeps of the parameters and of the optimizer's states. */
  pieces(): StatePiece[] {
    return [...this.#options.parameters.keys()].flatMap((key): StatePiece[] => {
      const placed = this.layout.parameters.get(key);
      if (placed === undefined) return [];
      const { local, parameter, states, statesStart, decayGroup } = placed;
      const { name, shape, box } = local;
      const piece = (kind: string, share: Share, from: number): StatePiece => ({
        ...{ kind, name, shape, box, ...keptRange(placed, share) },
        ...this.#residentPart(kind, from, keptRange(placed, share)),
        read: async (offset, into) => await this.#states.read(kind, from + offset, into),
        write: async (offset, values) => await this.#states.write(kind, from + offset, values),
      });
      const kept = piece("parameters", parameter, placed.parameterStart);
      if (decayGroup === undefined) return [kept];
      return [kept, ...this.#stateNames.map((kind) => piece(kind, states, statesStart))];
    });
  }

  #residentPart(kind: string, from: number, { start, end }: { start: number; end: number }) {
    return this.#states.isOnDisk(kind) ? {} : { resident: this.#states.view(kind, from, end - start) };
  }

  /**
   * The whole values of a parameter, on every rank. A collective. May be a view of this rank's memory: not to be
   * written.
   */
  async gatherParameter(name: string): Promise<Float32Array> {
    const { rank, parameters } = this.#options;
    if (rank === undefined || rank.world.size === 1) {
      return await this.wholeParameter(name);
    }
    const placed = this.layout.parameters.get(name);
    const own = placed !== undefined && this.#contributes(placed) ? placed : undefined;
    const contribution = own && {
      box: own.local.box,
      start: keptRange(own, own.parameter).start,
      values: await this.#keptParameter(own),
    };
    return await assembleParameter(rank.world, parameters.get(name)!.shape, contribution);
  }

  /**
   * Takes this rank's part of a parameter from its whole values. No collective; call `weightsChanged` when all are
   * set.
   */
  async setParameter(name: string, values: Float32Array): Promise<void> {
    const placed = this.layout.parameters.get(name);
    if (placed === undefined) return;
    const { local, parameter } = placed;
    const { start, end } = keptRange(placed, parameter);
    const kept = new Float32Array(end - start);
    forEachRun(local.shape, local.box, { start, end }, (inWhole, inPiece, length) => {
      kept.set(values.subarray(inWhole, inWhole + length), inPiece);
    });
    await this.#states.write("parameters", placed.parameterStart, kept);
  }

  /** Gives every parameter its initial value. */
  async initialize(seed: number): Promise<void> {
    const { backend, parameters } = this.#options;
    const executable = backend.compile(initializeGraph(parameters, this.layout), this.#states.offload);
    await executable.run({ ...this.#bindings, seed: Int32Array.of(seed, 0) });
    executable.dispose();
    this.weightsChanged();
  }

  /**
   * Looks at every weight that this rank keeps, with pauses for other work.
   * @throws RunError (`not_finite`) naming the first parameter that holds NaN or infinity.
   */
  async requireFiniteWeights(): Promise<void> {
    for (const [name, placed] of this.layout.parameters) {
      const values = await this.#keptParameter(placed);
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
    this.#copied = false;
    this.#runner.weightsChanged();
  }

  /** Continues from a checkpoint: the caller has filled the buffers. */
  restored(updates: number): void {
    this.#updates = updates;
    this.weightsChanged();
  }

  /**
   * One optimizer step over micro-batches. The loss is the mean over all targets of all of them, on all ranks. A
   * collective: each rank has as many batches.
   * @throws RunError (`not_finite`) naming the first tensor that was not finite, where the loss or the gradient
   * is not; the weights are then as before the step, but for those that were updated during backward.
   */
  async step(batches: readonly TrainingBatch[], settings: StepSettings): Promise<StepResult> {
    const started = performance.now();
    const { rank } = this.#options;
    const ownTargets = batches.reduce((sum, batch) => sum + batch.targetCount, 0);
    const counted = [{ value: ownTargets, counts: this.#countsTargets }];
    const [targets] = (await sumOverRanks(rank, counted)) as [number];
    const scale = this.lossScale?.scale ?? 1;
    const weight = targets === 0 ? 0 : scale / targets;
    let kernelSeconds = 0;
    await this.#copyHalves();
    if (this.#clear !== undefined) kernelSeconds += (await this.#clear.run(this.#bindings)).kernelSeconds;
    const result = await this.#runMicroBatches(batches, weight, settings);
    kernelSeconds += result.kernelSeconds;
    const norm = await this.#ownSquares();
    kernelSeconds += norm.seconds;
    const [loss, squares] = (await sumOverRanks(rank, [
      { value: result.loss, counts: this.#countsLoss },
      { value: norm.squares, counts: true },
    ])) as [number, number];
    if (this.interleaved.size > 0 && !Number.isFinite(loss + squares)) this.#refuseUpdated();
    const explains = this.lossScale === undefined || this.lossScale.exhausted;
    if (!Number.isFinite(loss) && explains) await this.#explain(batches, weight);
    const gradientNorm = Math.sqrt(squares) / scale;
    const finite = Number.isFinite(gradientNorm);
    if (finite) {
      kernelSeconds += await this.#applyUpdate(settings, gradientNorm, scale);
      this.lossScale?.succeeded();
    } else if (explains) {
      await this.#explain(batches, weight);
    } else {
      this.lossScale?.overflowed();
    }
    // What is left of gradients of another scale, or of infinite ones, fits the next ones no more.
    if (this.lossScale !== undefined && this.lossScale.scale !== scale) this.#residuals.fill(0);
    return {
      loss: targets === 0 ? 0 : loss / targets,
      gradientNorm,
      skipped: !finite,
      seconds: (performance.now() - started) / 1000,
      kernelSeconds,
    };
  }

  /** The summed loss of the batches of all ranks, without gradients. A collective. */
  async evaluate(batch: TrainingBatch): Promise<number> {
    await this.#copyHalves();
    const value = await this.#runner.evaluate(batch);
    const [loss] = (await sumOverRanks(this.#options.rank, [{ value, counts: this.#countsLoss }])) as [
      number,
    ];
    return loss;
  }

  /** Frees the evaluation program until it is needed again. */
  releaseEvaluation(): void {
    this.#runner.releaseEvaluation();
  }

  /** Frees the memory of the programs: states can still be read and saved. */
  releasePrograms(): void {
    this.#runner.dispose();
    for (const executable of [this.#clear, this.#copy, this.#norm, this.#update]) executable?.dispose();
  }

  /** Frees native memory and disk space; the engine cannot be used afterwards. */
  dispose(): void {
    this.releasePrograms();
    this.#states.close();
  }

  /** Whether this rank's targets are not also another's that counts. */
  get #countsTargets(): boolean {
    const { place } = this.#split.mesh;
    return place.tensor === 0 && place.sequence === 0 && place.pipeline === 0;
  }

  /** Whether the loss that this rank computes is not also another's that counts. */
  get #countsLoss(): boolean {
    return this.#split.mesh.place.tensor === 0;
  }

  /** Whether no rank that counts holds the same of a parameter as this one. */
  #contributes(placed: PlacedParameter): boolean {
    const { local, group, parameter } = placed;
    const { place } = this.#split.mesh;
    if (!local.replicatedOver.every((axis) => place[axis] === 0)) return false;
    return isFirstReplica(placed) && (parameter === "part" || group.rank === 0);
  }

  #passes(zero: ZeroSettings): RunnerContext["passes"] {
    const { parameters } = this.layout;
    if ([...parameters.values()].every((placed) => !isShared(placed))) return [];
    const gradients = new Map([...parameters].map(([name, placed]) => [gradientName(name), placed]));
    const leaves = {
      parameterOf: (leaf: string) => parameters.get(leaf),
      gradientOf: (leaf: string) => gradients.get(leaf),
    };
    return [partitionStates(leaves, zero)];
  }

  /** Squares are added up part by part, in the same order whatever each rank keeps and wherever it lies. */
  #chooseSquared(): SquaredStretch[] {
    const { mesh } = this.#split;
    return [...this.layout.parameters.values()].flatMap((placed): SquaredStretch[] => {
      const { decayGroup, gradientStart, gradient, part, local } = placed;
      const counts = local.replicatedOver.every((axis) => mesh.place[axis] === 0);
      if (decayGroup === undefined || !counts || !isFirstReplica(placed)) return [];
      return [
        { name: `of ${local.name}`, gradientStart: gradientStart + ownStart(placed, gradient), length: part },
      ];
    });
  }

  get #stateNames(): readonly string[] {
    return this.#options.optimizer.states;
  }

  /** Bytes of the buffers that count. */
  #bytesBy(counts: (kind: string) => boolean): StateBytes {
    const bytesOf = (kind: string): number => (counts(kind) ? this.#states.bytesOf(kind) : 0);
    return {
      parameters: bytesOf("parameters"),
      gradients: bytesOf("gradients"),
      optimizer: this.#stateNames.reduce((sum, name) => sum + bytesOf(name), 0),
      residuals: this.#residualBytes,
    };
  }

  /** Quantized gradients that are kept in parts: all of each waits for the next. */
  #residualElements(): number {
    return [...this.layout.parameters.values()]
      .filter(({ decayGroup, gradient }) => decayGroup !== undefined && gradient === "part")
      .reduce((sum, { padded }) => sum + padded, 0);
  }

  /** What this rank keeps of a parameter: a view where that is in memory, a copy otherwise. */
  async #keptParameter(placed: PlacedParameter): Promise<Float32Array> {
    const { start, end } = keptRange(placed, placed.parameter);
    return await this.#states.values("parameters", placed.parameterStart, end - start);
  }

  /** The copy of the parameters in bf16 follows where they were written by anything but an update. */
  async #copyHalves(): Promise<void> {
    if (this.#copy === undefined || this.#copied) return;
    await this.#copy.run(this.#bindings);
    this.#copied = true;
  }

  /**
   * The whole values of a parameter that this rank holds whole; no collective. A view where they are in memory.
   * @throws InternalError where it holds a part.
   */
  async wholeParameter(name: string): Promise<Float32Array> {
    return await this.#keptParameter(this.#wholePlaced(name));
  }

  #wholeParameter(name: string): Float32Array {
    const { parameterStart, elements } = this.#wholePlaced(name);
    return this.#states.view("parameters", parameterStart, elements);
  }

  #wholePlaced(name: string): PlacedParameter {
    const placed = this.layout.parameters.get(name);
    const elements = elementCount(this.#options.parameters.get(name)!.shape);
    if (placed === undefined || placed.parameter === "part" || placed.elements !== elements) {
      throw new InternalError(`this rank does not hold the whole of "${name}"`);
    }
    return placed;
  }

  /** The stretches of the gradients that are cleared at a time: all at once where they are in memory. */
  get #cleared(): readonly SquaredStretch[] {
    const length = this.layout.elements.gradients;
    if (!this.#states.isOnDisk("gradients")) return [{ name: "all", gradientStart: 0, length }];
    const stretches: SquaredStretch[] = [];
    for (let start = 0; start < length; start += clearedAtOnce) {
      const size = Math.min(clearedAtOnce, length - start);
      stretches.push({ name: `from ${start}`, gradientStart: start, length: size });
    }
    return stretches;
  }

  #placeLeaves(): void {
    const states = this.#states;
    const gradientElements = (placed: PlacedParameter, share: Share): number =>
      share === "part" ? placed.part : placed.elements;
    let residualStart = 0;
    for (const [name, placed] of this.layout.parameters) {
      const { parameter, gradient, parameterStart, gradientStart, padded, group } = placed;
      const kept = keptElements(placed, parameter);
      states.place(name, "parameters", parameterStart, parameter === "part" ? kept : placed.elements);
      if (states.keepsHalves) {
        states.place(`master ${name}`, "parameters", parameterStart, kept);
        states.placeHalf(`copy of ${name}`, parameterStart);
        // Only products and tables round weights to bf16; norms read theirs in float32. What is gathered after an
        // update comes in float32 alone.
        const complete = parameter === "part" || group.size === 1;
        if (placed.local.shape.length > 1 && complete) states.computeInHalf(name, parameterStart);
      }
      if (placed.decayGroup === undefined) continue;
      if (parameter === "whole" && group.size > 1)
        states.place(`whole ${name}`, "parameters", parameterStart, padded);
      if (gradient === "part" && this.#residuals.length > 0) {
        const residual = this.#residuals.subarray(residualStart, residualStart + padded);
        states.bindings[residualName(gradientName(name))] = residual;
        residualStart += padded;
      }
      states.place(gradientName(name), "gradients", gradientStart, gradientElements(placed, gradient));
      states.placeSweep(sweepOf(placed)!);
    }
    for (const { name, gradientStart, length } of [...this.#squared, ...this.#cleared])
      states.place(`gradients ${name}`, "gradients", gradientStart, length);
  }

  /** The squares that this rank answers for, added in the order of parameters. */
  async #ownSquares(): Promise<{ squares: number; seconds: number }> {
    const sums = this.#squared.map(() => new Float32Array(1));
    const outputs = Object.fromEntries(
      this.#squared.map(({ name }, index) => [`squares ${name}`, sums[index]!]),
    );
    const { kernelSeconds } = await this.#norm.run({ ...this.#bindings, ...outputs });
    return { squares: sums.reduce((sum, squares) => sum + squares[0]!, 0), seconds: kernelSeconds };
  }

  /** Runs micro-batches; the last one updates what was chosen, and a cost model may choose by what they took. */
  async #runMicroBatches(
    batches: readonly TrainingBatch[],
    weight: number,
    settings: StepSettings,
  ): Promise<MicroBatchResult> {
    const interleaver = this.#interleaver;
    if (interleaver.chosen.size > 0) {
      const beforeUpdates = async (): Promise<Bindings> => {
        await this.beforeUpdate?.();
        return this.#hyperparameters(settings, 1);
      };
      return await this.#runner.run(batches, weight, { beforeUpdates });
    }
    const before = this.diskTraffic;
    const started = performance.now();
    const result = await this.#runner.run(batches, weight);
    // The first step takes longer than those that follow.
    if (interleaver.undecided && this.#steps++ > 0) {
      const seconds = (performance.now() - started) / 1000;
      this.#measure = { seconds, count: batches.length, before: before!, after: this.diskTraffic! };
    }
    return result;
  }

  #hyperparameters(settings: StepSettings, gradientScale: number): Record<string, TensorData> {
    const bindings: Record<string, TensorData> = {};
    for (const group of this.layout.decayGroups) {
      const context = { ...settings, update: this.#updates + 1, decay: group === "decay", gradientScale };
      bindings[`hyper ${group}`] = Float32Array.from(this.#options.optimizer.hyper(context));
    }
    return bindings;
  }

  async #applyUpdate(settings: StepSettings, gradientNorm: number, scale: number): Promise<number> {
    const { gradientClipping: limit } = this.#options;
    const clip = limit > 0 && gradientNorm > limit ? limit / (gradientNorm + 1e-6) : 1;
    const bindings = { ...this.#bindings, ...this.#hyperparameters(settings, clip / scale) };
    await this.beforeUpdate?.();
    const kernelSeconds = this.#update === undefined ? 0 : (await this.#update.run(bindings)).kernelSeconds;
    this.#updates++;
    this.weightsChanged();
    // The update writes both.
    this.#copied = true;
    if (this.#measure !== undefined) {
      await this.#interleaver.decide(this.#measure);
      this.#measure = undefined;
      if (this.interleaved.size > 0) this.#compileUpdate();
    }
    return kernelSeconds;
  }

  /** Weights that backward has updated with what was not finite cannot be had back. */
  #refuseUpdated(): never {
    throw new RunError("not_finite", "the loss or its gradient is not finite (NaN or infinity)", {
      where: `update ${this.#updates + 1}, a part of which was made during backward`,
      hint: "go back to the last checkpoint; with zero_optimization.offload_optimizer.interleave: never the error names the tensor",
    });
  }

  /**
   * Runs batches again, looking at every result, to name the first that is not finite. Ranks that wait for one that
   * stopped there end with its reason.
   */
  async #explain(batches: readonly TrainingBatch[], weight: number): Promise<never> {
    try {
      await this.requireFiniteWeights();
      for (const batch of batches) {
        // What an earlier batch left in the gradients would hide where it began.
        if (this.#clear !== undefined) await this.#clear.run(this.#bindings);
        await this.#runner.run([batch], weight, { checkFinite: true });
      }
      throw new RunError("not_finite", "the gradient's norm is not finite, though each gradient is", {
        where: `update ${this.#updates + 1}`,
        hint: "lower the learning rate, or clip gradients",
      });
    } catch (error) {
      const { rank } = this.#options;
      if (rank !== undefined && rank.world.size > 1) {
        rank.world.abort(error instanceof Error ? error.message : String(error));
      }
      throw error;
    }
  }
}

/** Elements gathered by one collective after an update, by default. */
const gatheredAfterUpdate = 2 ** 22;

/** Gradients on disk that are cleared at a time. */
const clearedAtOnce = 2 ** 21;

/** Weights looked at between pauses: about a millisecond. */
const scannedAtOnce = 2 ** 20;

function allFinite(values: Float32Array): boolean {
  for (let index = 0; index < values.length; index++) if (!Number.isFinite(values[index]!)) return false;
  return true;
}
