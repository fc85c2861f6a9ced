import { join } from "node:path";
import { StreamDecoder } from "../data/index.ts";
import { generate, Model } from "../models/index.ts";
import type { Backend } from "../runtime/backend.ts";
import type { ProcessGroup } from "../runtime/group.ts";
import { onAnyRank, onRankZero, sumOverRanks } from "./agreement.ts";
import { batchRanks, describeMesh, type TrainConfig } from "./config/index.ts";
import {
  combineSinks,
  createLossChart,
  createMetricsLog,
  createTensorBoardLog,
  type MetricsSink,
  readMetrics,
  type StepMetrics,
} from "./metrics/index.ts";
import type { Rank } from "./rank.ts";
import { gatheringParameters, type RunProgress, saveTrainedModel, startSavingRun } from "./saving.ts";
import { parameterCount, type TrainingParts, totalSteps } from "./setup.ts";
import type { TrainingView, ViewState } from "./view/index.ts";

/** How a run ended. */
export interface RunOutcome {
  readonly reason: "finished" | "reached_loss" | "interrupted";
  readonly step: number;
  readonly loss: number;
  readonly evaluationLoss: number | undefined;
  /** Seconds of training, pauses left out. */
  readonly elapsedSeconds: number;
  readonly checkpoint: string;
  /** The folder of the model; undefined for an interrupted run. */
  readonly model: string | undefined;
}

/** What a loop needs besides the parts. */
export interface LoopOptions {
  readonly backend: Backend;
  readonly view: TrainingView;
  /** Where the run stands: zeros, or what a checkpoint says. */
  readonly progress: RunProgress;
  /** The checkpoint that the run goes on from; undefined for a run from the start. */
  readonly resumedFrom: string | undefined;
  /** Asked after every step whether to stop; all ranks stop where one is to. */
  readonly interrupted: () => boolean;
  /** Called before every step. */
  readonly beforeStep: (step: number) => void | Promise<void>;
}

/** How many losses the view's curve shows. */
const shownLosses = 400;

/** Runs a training from where it stands to its end. */
export class TrainingLoop {
  readonly #parts: TrainingParts;
  readonly #options: LoopOptions;
  readonly #sink: MetricsSink;
  readonly #total: number;
  /** Whether this rank prints and writes for all. */
  readonly #leads: boolean;
  readonly #losses: number[] = [];
  #step: number;
  #tokens: number;
  #elapsed: number;
  #stepSeconds = 0;
  #peak: number | undefined;
  #metrics: StepMetrics | undefined;
  #evaluation: { step: number; loss: number } | undefined;
  #sample: { prompt: string; text: string } | undefined;
  #savedAt = -1;
  /** The checkpoint that is being written. */
  #saving: Promise<void> = Promise.resolve();
  #checkpoint = "";

  constructor(parts: TrainingParts, options: LoopOptions) {
    this.#parts = parts;
    this.#options = options;
    const { step, tokens, elapsedSeconds } = options.progress;
    this.#step = step;
    this.#tokens = tokens;
    this.#elapsed = elapsedSeconds;
    if (options.resumedFrom !== undefined) {
      this.#savedAt = step;
      this.#checkpoint = options.resumedFrom;
    }
    this.#total = totalSteps(parts.config, parts.batch, parts.dataset);
    this.#leads = parts.rank === undefined || parts.rank.world.rank === 0;
    this.#sink = this.#leads ? this.#openSinks() : combineSinks([]);
  }

  /** @throws RunError where a result is not finite or a file cannot be written; what was saved stays. */
  async run(): Promise<RunOutcome> {
    const { backend, view } = this.#options;
    let outcome: RunOutcome;
    try {
      if (this.#leads)
        this.#peak = await backend.measurePeak?.(this.#parts.dtype === "bf16" ? "bf16" : "f32");
      outcome = await this.#finish(await this.#trainSteps());
    } catch (error) {
      this.#closeAfterFailure();
      throw error;
    } finally {
      view.close();
    }
    this.#sink.close();
    return outcome;
  }

  get #world(): ProcessGroup | undefined {
    return this.#parts.rank?.world;
  }

  /** Ranks that each compute rows of their own. */
  get #batchRanks(): number {
    const { rank } = this.#parts;
    return rank === undefined ? 1 : batchRanks(rank.mesh.sizes);
  }

  async #trainSteps(): Promise<RunOutcome["reason"]> {
    while (this.#step < this.#total) {
      await this.#options.beforeStep(this.#step + 1);
      await this.#trainStep();
      const reached = await this.#reachedLoss();
      await this.#checkpointWhenDue();
      if (await onAnyRank(this.#world, this.#options.interrupted())) return "interrupted";
      if (reached) return "reached_loss";
    }
    return "finished";
  }

  /** What failed first is what the run ends with: that closing its files failed too is only noted. */
  #closeAfterFailure(): void {
    try {
      this.#sink.close();
    } catch (error) {
      this.#options.view.note(messageOf(error));
    }
  }

  async #trainStep(): Promise<void> {
    const { engine, dataset, batch, schedule, config } = this.#parts;
    const started = performance.now();
    const batches = [];
    for (let index = 0; index < batch.accumulationSteps; index++) batches.push(await dataset.train.next());
    const dataSeconds = (performance.now() - started) / 1000;
    const learningRate = schedule.learningRate(engine.updates);
    const momentum = schedule.momentum?.(engine.updates);
    const result = await engine.step(batches, { learningRate, momentum });
    const seconds = (performance.now() - started) / 1000;
    this.#step++;
    this.#elapsed += seconds;
    // Every rank's micro-batches are of one size.
    const tokens = this.#batchRanks * batches.reduce((sum, { tokens }) => sum + tokens.length, 0);
    this.#tokens += tokens;
    this.#stepSeconds = this.#stepSeconds === 0 ? seconds : 0.9 * this.#stepSeconds + 0.1 * seconds;
    this.#losses.push(result.loss);
    if (this.#losses.length > shownLosses) this.#losses.shift();
    const flops = engine.modelFlops * batch.accumulationSteps * this.#batchRanks;
    const peak = this.#peak === undefined ? undefined : this.#peak * (this.#world?.size ?? 1);
    const metrics: StepMetrics = {
      step: this.#step,
      loss: result.loss,
      learning_rate: learningRate,
      gradient_norm: result.gradientNorm,
      tokens: this.#tokens,
      tokens_per_second: tokens / seconds,
      step_seconds: seconds,
      memory_bytes: process.memoryUsage.rss(),
      model_flops_utilisation: peak === undefined ? undefined : flops / seconds / peak,
      loss_scale: engine.lossScale?.scale,
      skipped_steps: engine.lossScale?.skipped,
      momentum,
      epoch: dataset.train.epoch,
      elapsed_seconds: this.#elapsed,
    };
    this.#metrics = metrics;
    this.#show();
    const evaluationLoss = this.#due(config.evaluation.every_steps) ? await this.#evaluate() : undefined;
    this.#sink.record({ ...metrics, evaluation_loss: evaluationLoss });
    if (config.samples !== undefined && this.#due(config.samples.every_steps)) {
      await this.#writeSamples();
    }
    if (config.wall_clock_breakdown && this.#step % config.steps_per_print === 0) {
      const outside = seconds - dataSeconds - result.kernelSeconds;
      this.#options.view.note(
        `step ${this.#step}: data ${milliseconds(dataSeconds)}, kernels ${milliseconds(result.kernelSeconds)}, outside of kernels ${milliseconds(outside)} (${((100 * outside) / seconds).toFixed(1)}%)`,
      );
    }
  }

  /** Whether something that happens every `every` steps, and at the end, happens now. */
  #due(every: number): boolean {
    return this.#step % every === 0 || this.#step === this.#total;
  }

  /** Mean loss over the validation data. */
  async #evaluate(): Promise<number | undefined> {
    const { dataset, engine, config } = this.#parts;
    if (dataset.validation === undefined) return undefined;
    this.#show("evaluating");
    const { max_batches: most } = config.evaluation;
    const limits = most === undefined ? {} : { maximumBatches: Math.ceil(most / this.#batchRanks) };
    let sum = 0;
    let ownTargets = 0;
    for await (const batch of dataset.validation.onePass(limits)) {
      sum += await engine.evaluate(batch);
      ownTargets += batch.targetCount;
    }
    engine.releaseEvaluation();
    const { rank } = this.#parts;
    const [targets = 0] = await sumOverRanks(rank, [{ value: ownTargets, counts: hasOwnRows(rank) }]);
    if (targets === 0) {
      this.#options.view.note("the batches of this evaluation hold nothing to predict");
      return undefined;
    }
    this.#evaluation = { step: this.#step, loss: sum / targets };
    this.#show();
    this.#sink.flush();
    return sum / targets;
  }

  async #writeSamples(): Promise<void> {
    const { samples, seed } = this.#parts.config;
    if (samples === undefined) return;
    this.#show("writing a sample");
    const weights = new Map<string, Float32Array>();
    await gatheringParameters(this.#parts, async (valuesOf) => {
      for (const name of this.#parts.parameters.keys()) weights.set(name, await valuesOf(name));
    });
    await onRankZero(this.#world, () => this.#continuePrompts(samples, seed, weights));
  }

  async #continuePrompts(
    samples: NonNullable<TrainConfig["samples"]>,
    seed: number,
    weights: ReadonlyMap<string, Float32Array>,
  ): Promise<void> {
    const { tokenizer, family, modelConfig, language, parameters, dtype } = this.#parts;
    const model = new Model({
      family,
      config: modelConfig,
      language,
      parameters,
      weights,
      backend: this.#options.backend,
      // Half-precision caches gain nothing here: samples are short.
      dtype: dtype === "f16" ? "f32" : dtype,
    });
    const { max_tokens: maxTokens, temperature } = samples;
    for (const { text: prompt, ids } of this.#parts.samplePrompts) {
      const decoder = new StreamDecoder(tokenizer, { context: ids });
      const stopTokens = tokenizer.endToken === undefined ? [] : [tokenizer.endToken];
      let text = "";
      for await (const id of generate(model, ids, {
        maxTokens,
        temperature,
        seed: seed + this.#step,
        stopTokens,
      })) {
        text += decoder.push(id);
      }
      this.#sample = { prompt, text: text + decoder.flush() };
      this.#show();
    }
  }

  async #reachedLoss(): Promise<boolean> {
    const { stop_at_loss: target } = this.#parts.config;
    if (target === undefined) return false;
    const validated = this.#parts.dataset.validation !== undefined;
    const current = validated
      ? this.#evaluation?.step === this.#step
        ? this.#evaluation.loss
        : undefined
      : this.#metrics?.loss;
    return current !== undefined && current <= target;
  }

  async #checkpointWhenDue(): Promise<void> {
    const every = this.#parts.config.checkpoint.every_steps;
    if (every !== undefined && this.#step % every === 0) await this.#save();
  }

  async #save(): Promise<void> {
    if (this.#savedAt === this.#step) return;
    this.#show("saving a checkpoint");
    this.#sink.flush();
    // A checkpoint of damaged weights would in time push out the whole ones.
    await this.#parts.engine.requireFiniteWeights();
    // One checkpoint at a time.
    await this.#saving;
    const progress = { step: this.#step, tokens: this.#tokens, elapsedSeconds: this.#elapsed };
    const { engine, config } = this.#parts;
    const { freeze, done } = await startSavingRun(this.#parts, progress);
    this.#savedAt = this.#step;
    this.#saving = done.then(({ folder }) => {
      this.#checkpoint = folder;
      this.#options.view.note(`saved ${folder}`);
      this.#show();
    });
    if (!config.checkpoint.async || engine.hasStatesOnDisk) {
      await this.#saving;
      return;
    }
    // The run goes on until it changes what is not written yet. A failure is told at once; it ends the run at the next
    // checkpoint, the same step on every rank.
    engine.beforeUpdate = async () => {
      engine.beforeUpdate = undefined;
      await freeze();
    };
    this.#saving.catch((error: unknown) => this.#options.view.note(messageOf(error)));
  }

  async #finish(reason: RunOutcome["reason"]): Promise<RunOutcome> {
    const { dataset } = this.#parts;
    if (
      reason !== "interrupted" &&
      dataset.validation !== undefined &&
      this.#evaluation?.step !== this.#step
    ) {
      await this.#evaluate();
    }
    await this.#save();
    await this.#saving;
    // Nothing is computed any more: saving needs the weights, not the programs.
    this.#parts.engine.dispose();
    const model = reason === "interrupted" ? undefined : await saveTrainedModel(this.#parts);
    // A run that was finished before it was resumed has no step of its own, only its history.
    const loss = this.#losses.at(-1) ?? Number.NaN;
    return {
      reason,
      step: this.#step,
      loss,
      evaluationLoss: this.#evaluation?.loss,
      elapsedSeconds: this.#elapsed,
      checkpoint: this.#checkpoint,
      model,
    };
  }

  #show(activity?: string): void {
    const metrics = this.#metrics;
    if (metrics === undefined) return;
    const state: ViewState = {
      title: this.#title(),
      activity,
      step: this.#step,
      totalSteps: this.#total,
      losses: this.#losses,
      learningRate: metrics.learning_rate,
      gradientNorm: metrics.gradient_norm,
      tokensPerSecond: metrics.tokens_per_second,
      modelFlopsUtilisation: metrics.model_flops_utilisation,
      memoryBytes: metrics.memory_bytes,
      stepSeconds: this.#stepSeconds,
      lossScale: metrics.loss_scale,
      evaluation: this.#evaluation,
      sample: this.#sample,
    };
    this.#options.view.update(state);
  }

  #title(): string {
    const { family, parameters, dtype, config } = this.#parts;
    const millions = parameterCount(parameters) / 1e6;
    const data = Array.isArray(config.data.train) ? `${config.data.train.length} sources` : config.data.train;
    const { rank } = this.#parts;
    const mesh = rank === undefined ? "" : `, ${describeMesh(rank.mesh.sizes)}`;
    return `${family.type} ${millions.toFixed(millions < 10 ? 1 : 0)}M ${dtype} on ${data}${mesh}`;
  }

  #openSinks(): MetricsSink {
    const { config } = this.#parts;
    const { resumedFrom, progress } = this.#options;
    const resumed = resumedFrom !== undefined;
    const path = join(config.output_dir, "metrics.jsonl");
    const resumeAfter = resumed ? progress.step : undefined;
    const log = createMetricsLog(path, resumeAfter);
    const history = resumed ? readMetrics(path) : [];
    for (const { loss } of history.slice(-shownLosses)) this.#losses.push(loss);
    const caption = { title: "Training loss", subtitle: this.#title() };
    const sinks = [log, createLossChart(join(config.output_dir, "loss.svg"), caption, history)];
    if (config.tensorboard.enabled) {
      const folder = config.tensorboard.output_path ?? join(config.output_dir, "tensorboard");
      sinks.push(createTensorBoardLog(join(folder, config.tensorboard.job_name), resumeAfter));
    }
    return combineSinks(sinks);
  }
}

/** Whether no rank before this one computes the same rows. */
function hasOwnRows(rank: Rank | undefined): boolean {
  if (rank === undefined) return true;
  const { tensor, sequence, pipeline } = rank.mesh.place;
  return tensor === 0 && sequence === 0 && pipeline === 0;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function milliseconds(seconds: number): string {
  return `${(seconds * 1000).toFixed(1)} ms`;
}
