import type { TensorData } from "../../base/dtype.ts";
import { elementCount, resolveShape } from "../../base/shape.ts";
import type { Graph } from "../../graph/graph.ts";
import type { PipelineCut, PipelineStage } from "../../parallel/pipeline/cut.ts";
import { type Action, type ScheduleTable, stageOf } from "../../parallel/pipeline/schedules.ts";
import type { Backend, Bindings, Executable, MemoryPlan, RunOptions } from "../../runtime/backend.ts";
import type { Trace } from "../../runtime/trace.ts";
import type { MicroBatchResult, MicroBatchRunner, TrainingBatch } from "../micro_batches.ts";
import type { BoundBatch, LocalProgram } from "../sharding.ts";
import type { BufferPlan } from "./buffers.ts";
import type { Direction, PipelineChannels } from "./channels.ts";
import { programOf, StagePrograms } from "./programs.ts";

/** What programs bind of a micro-batch. */
type BatchBinding = Pick<LocalProgram, "bind" | "batchLeaves">;

/** What a pipeline's runner works with. */
export interface PipelineRunnerOptions {
  readonly backend: Backend;
  readonly channels: PipelineChannels;
  /** Loss and gradients as the programs of all stages. */
  readonly cut: PipelineCut;
  /** The loss alone, cut alike, and what its programs bind; asked for when something is evaluated. */
  readonly evaluation: () => { readonly cut: PipelineCut; readonly batches: BatchBinding };
  /** What the programs bind of a micro-batch. */
  readonly batches: BatchBinding;
  /** What every rank does with so many micro-batches. */
  readonly schedule: (microBatches: number) => ScheduleTable;
  /** Stages of each rank. */
  readonly chunks: number;
  /** Makes an executable of a stage's graph. */
  readonly compile: (graph: Graph) => Executable;
  /** The memory of this rank's parameters and gradients, by the names of their leaves. */
  readonly bindings: Bindings;
  readonly gradientName: (parameter: string) => string;
  /** Model FLOPs of one micro-batch over all stages. */
  readonly modelFlops: number;
  /** Gets a span an action, on a lane of its own. */
  readonly trace?: Trace | undefined;
}

/** A message under way: the memory must stay as it is until it has left. */
interface Departure {
  readonly place: number;
  readonly sent: Promise<void>;
}

/**
 * Runs a step's micro-batches through one rank's stages of a pipeline, in the order of a schedule's table. Receives
 * are started one action ahead; sends leave while the next action runs.
 */
export class PipelineRunner implements MicroBatchRunner {
  readonly modelFlops: number;
  readonly #options: PipelineRunnerOptions;
  readonly #stages: readonly PipelineStage[];
  readonly #programs: StagePrograms;
  readonly #loss: TensorData;
  readonly #weight: TensorData;
  readonly #tables = new Map<number, ScheduleTable>();
  readonly #lane: number | undefined;
  #evaluation:
    | {
        readonly stages: readonly PipelineStage[];
        readonly programs: StagePrograms;
        readonly batches: BatchBinding;
      }
    | undefined;

  constructor(options: PipelineRunnerOptions) {
    const { backend, channels, cut, chunks, trace } = options;
    this.#options = options;
    this.modelFlops = options.modelFlops;
    this.#loss = backend.allocate("f32", 1);
    this.#weight = backend.allocate("f32", 1);
    this.#stages = ownStages(cut, channels, chunks);
    this.#programs = this.#programsOf(this.#stages, options.batches);
    this.#lane = trace?.addLane(`pipeline rank ${channels.rank}`);
  }

  get memory(): MemoryPlan {
    return this.#programs.memory;
  }

  async run(
    batches: readonly TrainingBatch[],
    weight: number,
    options: RunOptions = {},
  ): Promise<MicroBatchResult> {
    this.#weight[0] = weight;
    const count = batches.length;
    const table = this.#tables.get(count) ?? this.#options.schedule(count);
    this.#tables.set(count, table);
    const result = await this.#execute(
      table,
      this.#stages,
      this.#programs,
      batches.map(this.#options.batches.bind),
      options,
    );
    await this.#sumShared();
    return result;
  }

  async evaluate(batch: TrainingBatch): Promise<number> {
    if (this.#evaluation === undefined) {
      const { channels, chunks } = this.#options;
      const { cut, batches } = this.#options.evaluation();
      const stages = ownStages(cut, channels, chunks);
      this.#evaluation = { stages, programs: this.#programsOf(stages, batches), batches };
    }
    const { stages, programs, batches } = this.#evaluation;
    const { loss } = await this.#execute(this.#forwardOnly(), stages, programs, [batches.bind(batch)], {});
    return loss;
  }

  releaseEvaluation(): void {
    this.#evaluation?.programs.dispose();
    this.#evaluation = undefined;
  }

  weightsChanged(): void {
    this.#programs.invalidateParameters();
    this.#evaluation?.programs.invalidateParameters();
  }

  dispose(): void {
    this.#programs.dispose();
    this.releaseEvaluation();
    this.#options.channels.close();
  }

  #programsOf(stages: readonly PipelineStage[], batches: BatchBinding): StagePrograms {
    const { backend, compile, bindings } = this.#options;
    const memory = { backend, bindings: { ...bindings, loss: this.#loss, weight: this.#weight } };
    return new StagePrograms(memory, stages, compile, batches.batchLeaves);
  }

  #forwardOnly(): ScheduleTable {
    const { channels, chunks } = this.#options;
    const list = Array.from(
      { length: chunks },
      (_, chunk): Action => ({ kind: "forward", chunk, microBatch: 0 }),
    );
    const known = this.#tables.get(0);
    if (known !== undefined) return known;
    const ranks = channels.ranks;
    const table = { ranks, chunks, microBatches: 1, actions: Array.from({ length: ranks }, () => list) };
    this.#tables.set(0, table);
    return table;
  }

  async #execute(
    table: ScheduleTable,
    stages: readonly PipelineStage[],
    programs: StagePrograms,
    batches: readonly BoundBatch[],
    options: RunOptions,
  ): Promise<MicroBatchResult> {
    const { channels, trace } = this.#options;
    const actions = table.actions[channels.rank]!;
    const plan = programs.plan(table, channels.rank);
    const arrivals: Promise<void>[] = [];
    const departures: Departure[] = [];
    const expect = (place: number): void => {
      const action = actions[place];
      if (action === undefined) return;
      const arrival = this.#receive(action, stages, programs, plan, batches);
      // An error is raised where the message is waited for.
      arrival.catch(() => {});
      arrivals[place] = arrival;
    };
    let loss = 0;
    let kernelSeconds = 0;
    expect(0);
    for (const [place, action] of actions.entries()) {
      const { kind, chunk, microBatch } = action;
      const batch = batches[microBatch]!;
      if (kind === "forward") programs.loadBatch(chunk, plan.batchOf(chunk, microBatch), batch.leaves);
      // What left two actions ago may be written over from here on.
      while (departures[0] !== undefined && departures[0].place < place - 1) await departures.shift()!.sent;
      expect(place + 1);
      await arrivals[place];
      const started = trace?.now() ?? 0;
      const bound = programs.bound(plan, chunk, programOf(kind), microBatch);
      this.#loss[0] = 0;
      if (bound !== undefined) kernelSeconds += (await bound.run(batch.symbols, options)).kernelSeconds;
      loss += this.#loss[0]!;
      if (trace !== undefined && this.#lane !== undefined) {
        const stage = stageOf(table, channels.rank, chunk);
        const name = `${kind.replaceAll("_", " ")} ${microBatch}`;
        trace.span(this.#lane, name, "pipeline", started, trace.now(), { stage });
      }
      const sent = this.#send(action, stages, programs, plan, batch);
      sent.catch(() => {});
      departures.push({ place, sent });
    }
    for (const { sent } of departures) await sent;
    return { loss, kernelSeconds };
  }

  /** Receives what an action waits for. */
  async #receive(
    action: Action,
    stages: readonly PipelineStage[],
    programs: StagePrograms,
    plan: BufferPlan,
    batches: readonly BoundBatch[],
  ): Promise<void> {
    const { kind, chunk, microBatch } = action;
    if (kind === "weight_gradient") return;
    const direction: Direction = kind === "forward" ? "forward" : "backward";
    const names = kind === "forward" ? stages[chunk]!.fromPrevious : stages[chunk]!.fromNext;
    await this.#transfer(
      "receive",
      direction,
      names,
      { chunk, microBatch, stages, programs, plan },
      batches[microBatch]!,
    );
  }

  /** Sends what an action made for its neighbour. */
  async #send(
    action: Action,
    stages: readonly PipelineStage[],
    programs: StagePrograms,
    plan: BufferPlan,
    batch: BoundBatch,
  ): Promise<void> {
    const { kind, chunk, microBatch } = action;
    if (kind === "weight_gradient") return;
    const direction: Direction = kind === "forward" ? "forward" : "backward";
    const names = kind === "forward" ? stages[chunk]!.toNext : stages[chunk]!.toPrevious;
    await this.#transfer("send", direction, names, { chunk, microBatch, stages, programs, plan }, batch);
  }

  async #transfer(
    verb: "send" | "receive",
    direction: Direction,
    names: readonly string[],
    at: {
      readonly chunk: number;
      readonly microBatch: number;
      readonly stages: readonly PipelineStage[];
      readonly programs: StagePrograms;
      readonly plan: BufferPlan;
    },
    batch: BoundBatch,
  ): Promise<void> {
    if (names.length === 0) return;
    const { chunk, microBatch, stages, programs, plan } = at;
    const { symbols } = batch;
    const tensors = names.map((name) => {
      const { type } = stages[chunk]!.values.find((value) => value.name === name)!;
      const elements = elementCount(resolveShape(type.shape, symbols));
      return programs.buffer(chunk, name, plan.bufferOf(chunk, microBatch, name)).subarray(0, elements);
    });
    const what = direction === "forward" ? "activations" : "gradients of activations";
    await this.#options.channels[verb](direction, tensors, `${what} of micro-batch ${microBatch}`);
  }

  /** Adds up the gradients of parameters that several ranks hold. */
  async #sumShared(): Promise<void> {
    const { cut, channels, bindings, gradientName } = this.#options;
    for (const members of sharingRanks(cut, channels.ranks)) {
      if (!members.includes(channels.rank)) continue;
      const names = [...cut.shared.keys()].filter(
        (name) => ranksOf(cut, name, channels.ranks).join() === members.join(),
      );
      const gradients = names.flatMap((name) => bindings[gradientName(name)] ?? []);
      if (gradients.length > 0) await channels.sum(members, gradients, `gradients of ${names.join(", ")}`);
    }
  }
}

function ownStages(cut: PipelineCut, channels: PipelineChannels, chunks: number): PipelineStage[] {
  const { rank, ranks } = channels;
  return Array.from({ length: chunks }, (_, chunk) => cut.stages[stageOf({ ranks }, rank, chunk)]!);
}

/** The ranks that hold a shared parameter, ascending. */
function ranksOf(cut: PipelineCut, name: string, ranks: number): number[] {
  return [...new Set(cut.shared.get(name)!.map((stage) => stage % ranks))].sort((a, b) => a - b);
}

/** The sets of two ranks or more that hold parameters together, in one order on all ranks: what channels open. */
export function sharingRanks(cut: PipelineCut, ranks: number): number[][] {
  const sets = new Map<string, number[]>();
  for (const name of [...cut.shared.keys()].sort()) {
    const members = ranksOf(cut, name, ranks);
    if (members.length > 1) sets.set(members.join(), members);
  }
  return [...sets.values()];
}
