import { bytesPerElement, type TensorData } from "../../base/dtype.ts";
import { ConfigError } from "../../base/errors.ts";
import { elementCount, maximumElements, resolveShape } from "../../base/shape.ts";
import type { Graph } from "../../graph/graph.ts";
import type { PipelineCut, PipelineStage } from "../../parallel/pipeline/cut.ts";
import { type Action, type ScheduleTable, stageOf } from "../../parallel/pipeline/schedules.ts";
import type { Backend, Bindings, Executable, MemoryPlan, RunOptions } from "../../runtime/backend.ts";
import type { ProcessGroup } from "../../runtime/group.ts";
import type { Trace } from "../../runtime/trace.ts";
import type { BetweenPrograms, MicroBatchResult, MicroBatchRunner, TrainingBatch } from "../micro_batches.ts";
import type { BoundBatch, LocalProgram } from "../sharding.ts";
import type { BufferPlan } from "./buffers.ts";
import { type Direction, PipelineChannels } from "./channels.ts";
import { programOf, StagePrograms } from "./programs.ts";

/** A program over all stages, cut, and what its leaves take of a batch. */
export interface CutProgram {
  readonly cut: PipelineCut;
  readonly bind: LocalProgram["bind"];
}

/** What a pipeline's runner works with. */
export interface PipelineRunnerOptions {
  readonly backend: Backend;
  /** The ranks of the pipeline. Links between them are opened with the first run. */
  readonly pipeline: ProcessGroup;
  /** Loss and gradients. */
  readonly train: CutProgram;
  /** The loss alone, cut alike; asked for when something is evaluated. */
  readonly evaluation: () => CutProgram;
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

/** A program over all stages as this rank runs it. */
interface OwnProgram {
  readonly stages: readonly PipelineStage[];
  readonly programs: StagePrograms;
  readonly bind: LocalProgram["bind"];
}

/** One pass of a step's micro-batches through a rank's stages. */
interface Pass extends OwnProgram {
  readonly channels: PipelineChannels;
  readonly table: ScheduleTable;
  readonly plan: BufferPlan;
  readonly batches: readonly BoundBatch[];
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
  readonly #train: OwnProgram;
  readonly #loss: TensorData;
  readonly #weight: TensorData;
  readonly #tables = new Map<number, ScheduleTable>();
  readonly #lane: number | undefined;
  #channels: Promise<PipelineChannels> | undefined;
  #evaluation: OwnProgram | undefined;

  /** @throws ConfigError where a gradient that several ranks hold does not lie in memory. */
  constructor(options: PipelineRunnerOptions) {
    const { backend, pipeline, trace } = options;
    this.#options = options;
    this.modelFlops = options.modelFlops;
    this.#loss = backend.allocate("f32", 1);
    this.#weight = backend.allocate("f32", 1);
    this.#sharedGradients();
    this.#train = this.#own(options.train);
    this.#lane = trace?.addLane(`pipeline rank ${pipeline.rank}`);
  }

  get memory(): MemoryPlan {
    return this.#train.programs.memory;
  }

  between(microBatches: number): BetweenPrograms {
    const { pipeline, schedule, chunks } = this.#options;
    const { programs, stages } = this.#train;
    const { rank, size: ranks } = pipeline;
    const sent = stages.flatMap((stage, chunk) => {
      const own = stageOf({ ranks }, rank, chunk);
      const message = (to: number, names: readonly string[]) => ({
        ...{ from: own, to, bytes: bytesOfValues(stage, names), messages: names.length },
      });
      const all = [message(own + 1, stage.toNext), message(own - 1, stage.toPrevious)];
      return all.filter(({ to, messages }) => messages > 0 && to >= 0 && to < ranks * chunks);
    });
    return { heldBytes: programs.heldBytes(programs.plan(schedule(microBatches), rank)), sent };
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
    const result = await this.#execute(table, this.#train, batches, options);
    const channels = await this.#open();
    for (const { members, label, gradients } of this.#sharedGradients())
      await channels.sum(members, gradients, label);
    return result;
  }

  async evaluate(batch: TrainingBatch): Promise<number> {
    this.#evaluation ??= this.#own(this.#options.evaluation());
    const { loss } = await this.#execute(this.#forwardOnly(), this.#evaluation, [batch], {});
    return loss;
  }

  releaseEvaluation(): void {
    this.#evaluation?.programs.dispose();
    this.#evaluation = undefined;
  }

  weightsChanged(): void {
    this.#train.programs.invalidateParameters();
    this.#evaluation?.programs.invalidateParameters();
  }

  dispose(): void {
    this.#train.programs.dispose();
    this.releaseEvaluation();
    // Links that never opened have nothing to close.
    this.#channels?.then(
      (channels) => channels.close(),
      () => {},
    );
  }

  #own({ cut, bind }: CutProgram): OwnProgram {
    const { backend, compile, bindings, pipeline, chunks } = this.#options;
    const { rank, size: ranks } = pipeline;
    const stages = Array.from({ length: chunks }, (_, chunk) => cut.stages[stageOf({ ranks }, rank, chunk)]!);
    const memory = { backend, bindings: { ...bindings, loss: this.#loss, weight: this.#weight } };
    return { stages, bind, programs: new StagePrograms(memory, stages, compile) };
  }

  #open(): Promise<PipelineChannels> {
    const { pipeline, train } = this.#options;
    this.#channels ??= PipelineChannels.open(pipeline, sharingRanks(train.cut, pipeline.size));
    return this.#channels;
  }

  #forwardOnly(): ScheduleTable {
    const known = this.#tables.get(0);
    if (known !== undefined) return known;
    const { pipeline, chunks } = this.#options;
    const { size: ranks } = pipeline;
    const list = Array.from(
      { length: chunks },
      (_, chunk): Action => ({ kind: "forward", chunk, microBatch: 0 }),
    );
    const table = { ranks, chunks, microBatches: 1, actions: Array.from({ length: ranks }, () => list) };
    this.#tables.set(0, table);
    return table;
  }

  async #execute(
    table: ScheduleTable,
    program: OwnProgram,
    given: readonly TrainingBatch[],
    options: RunOptions,
  ): Promise<MicroBatchResult> {
    const channels = await this.#open();
    const { programs, bind } = program;
    const actions = table.actions[channels.rank]!;
    const plan = programs.plan(table, channels.rank);
    const batches = given.map((batch) => bind(batch));
    const pass: Pass = { ...program, channels, table, plan, batches };
    const arrivals: Promise<void>[] = [];
    const departures: Departure[] = [];
    const expect = (place: number): void => {
      const action = actions[place];
      if (action === undefined) return;
      const arrival = transfer("receive", action, pass);
      // An error is raised where the message is waited for.
      arrival.catch(() => {});
      arrivals[place] = arrival;
    };
    let loss = 0;
    let kernelSeconds = 0;
    expect(0);
    for (const [place, action] of actions.entries()) {
      const { kind, chunk, microBatch } = action;
      const { leaves, symbols } = batches[microBatch]!;
      if (kind === "forward") programs.loadBatch(chunk, plan.batchOf(chunk, microBatch), leaves);
      // What left two actions ago may be written over from here on.
      while (departures[0] !== undefined && departures[0].place < place - 1) await departures.shift()!.sent;
      expect(place + 1);
      await arrivals[place];
      const bound = programs.bound(plan, chunk, programOf(kind), microBatch);
      this.#loss[0] = 0;
      const started = this.#options.trace?.now() ?? 0;
      if (bound !== undefined) kernelSeconds += (await bound.run(symbols, options)).kernelSeconds;
      this.#record(action, stageOf(table, channels.rank, chunk), started);
      loss += this.#loss[0]!;
      const sent = transfer("send", action, pass);
      sent.catch(() => {});
      departures.push({ place, sent });
    }
    for (const { sent } of departures) await sent;
    return { loss, kernelSeconds };
  }

  #record({ kind, microBatch }: Action, stage: number, started: number): void {
    const { trace } = this.#options;
    if (trace === undefined || this.#lane === undefined) return;
    const name = `${kind.replaceAll("_", " ")} ${microBatch}`;
    trace.span(this.#lane, name, "pipeline", started, trace.now(), { stage });
  }

  /** The gradients that this rank holds with others, by the ranks that they are summed over. */
  #sharedGradients(): { members: readonly number[]; label: string; gradients: TensorData[] }[] {
    const { train, pipeline, bindings, gradientName } = this.#options;
    const { cut } = train;
    const made = new Set(
      cut.stages.flatMap(({ forward, backward, weightGradient }) =>
        [forward, backward, weightGradient].flatMap((program) =>
          (program?.graph.outputs ?? []).flatMap(({ target }) => target?.node.attributes.name ?? []),
        ),
      ),
    );
    const sets = sharingRanks(cut, pipeline.size).filter((members) => members.includes(pipeline.rank));
    return sets.flatMap((members) => {
      const names = [...cut.shared.keys()].filter(
        (name) => made.has(gradientName(name)) && ranksOf(cut, name, pipeline.size).join() === members.join(),
      );
      if (names.length === 0) return [];
      const gradients = names.map((name) => bindings[gradientName(name)] ?? refuseAway(name));
      return [{ members, label: `gradients of ${names.join(", ")}`, gradients }];
    });
  }
}

/** Receives what an action waits for, or sends what it made. */
async function transfer(verb: "send" | "receive", action: Action, pass: Pass): Promise<void> {
  const { kind, chunk, microBatch } = action;
  if (kind === "weight_gradient") return;
  const direction: Direction = kind === "forward" ? "forward" : "backward";
  const stage = pass.stages[chunk]!;
  const incoming = direction === "forward" ? stage.fromPrevious : stage.fromNext;
  const outgoing = direction === "forward" ? stage.toNext : stage.toPrevious;
  const names = verb === "receive" ? incoming : outgoing;
  if (names.length === 0) return;
  const { symbols } = pass.batches[microBatch]!;
  const tensors = names.map((name) => {
    const { type } = stage.values.find((value) => value.name === name)!;
    const elements = elementCount(resolveShape(type.shape, symbols));
    const buffer = pass.plan.bufferOf(chunk, microBatch, name);
    return pass.programs.buffer(chunk, name, buffer).subarray(0, elements);
  });
  const what = direction === "forward" ? "activations" : "gradients of activations";
  await pass.channels[verb](direction, tensors, `${what} of micro-batch ${microBatch}`);
}

function bytesOfValues(stage: PipelineStage, names: readonly string[]): number {
  return names.reduce((sum, name) => {
    const { type } = stage.values.find((value) => value.name === name)!;
    return sum + maximumElements(type.shape) * bytesPerElement(type.dtype);
  }, 0);
}

function refuseAway(name: string): never {
  throw new ConfigError(
    "pipeline_offload",
    "a parameter that several stages share has its gradient on disk",
    {
      where: "zero_optimization.offload_optimizer",
      received: name,
      hint: "leave gradients in memory, untie the embedding, or remove parallel.pipeline",
    },
  );
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
