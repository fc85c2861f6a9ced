import { loadTokenizer } from "../../data/index.ts";
import { Mesh, type MeshPlace, type MeshSizes, meshAxes } from "../../parallel/mesh.ts";
import type { Machine, PlanningBackend } from "../../runtime/planning.ts";
import {
  type BatchSizes,
  batchRanks,
  matchesAny,
  requireSplits,
  resolveBatch,
  type TrainConfig,
} from "../config/index.ts";
import { activationDType } from "../engine_settings.ts";
import { buildModel, type ModelShape, parameterCount } from "../setup.ts";
import { countModules, type ModuleCount } from "./modules.ts";
import { communicationOf, diskOf, hardwareFlops, memoryOf, type PlannedStage, planStage } from "./stage.ts";
import { stepTime } from "./step_time.ts";

/** Bytes of resident memory by what they are for. */
export interface MemoryByKind {
  /** The float32 weights. */
  readonly parameters: number;
  readonly gradients: number;
  /** The optimizer's buffers. */
  readonly optimizer: number;
  /** What quantized gradients did not send yet. */
  readonly residuals: number;
  /** Values that live inside a run of the training programs. */
  readonly activations: number;
  /** Values that wait between the programs of a pipeline's stage. */
  readonly waiting: number;
  /** Weights in the dtype and order that kernels read. */
  readonly packedWeights: number;
  readonly constants: number;
  /** Work space of kernels; an estimate. */
  readonly scratch: number;
  /** What the program of evaluation keeps, where there is validation data. */
  readonly evaluation: number;
  /** The batches of one step. */
  readonly data: number;
  /** The process itself: Node, the compiled kernels and the code. */
  readonly baseline: number;
}

/** What a step takes on a machine, where every kernel reaches the machine's pace. */
export interface StepTime {
  readonly machine: Machine;
  readonly seconds: number;
  readonly tokensPerSecond: number;
  /** Model FLOPs over what the machines of all ranks could do in that time. */
  readonly utilization: number;
  /** Seconds in which the slowest rank's kernels run. */
  readonly compute: number;
  /** Seconds in which its kernels wait for collectives. */
  readonly exposed: number;
  /** The part of the step in which the ranks of a pipeline wait for each other. */
  readonly bubble: number;
}

/** What a rank passes to others in a step over the groups of some axes. */
export interface PlannedCommunication {
  readonly axes: string;
  readonly bytes: number;
  readonly messages: number;
  /** Seconds of these collectives one after another; absent where no links are known. */
  readonly seconds?: number;
}

/** What a rank keeps on disk, and what a step reads from it and writes. */
export interface PlannedDisk {
  readonly bytes: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
}

/** What one rank of a stage of the pipeline takes. */
export interface RankPlan {
  readonly place: MeshPlace;
  readonly memory: MemoryByKind & { readonly total: number };
  readonly communication: readonly PlannedCommunication[];
  /** Absent where everything is in memory. */
  readonly disk?: PlannedDisk;
}

/** What training as a config says would take. Plain data: it is its own JSON. */
export interface TrainingPlan {
  readonly parameters: {
    readonly total: number;
    /** Those that are not frozen. */
    readonly trained: number;
    readonly modules: readonly ModuleCount[];
  };
  readonly dtype: "f32" | "bf16" | "f16";
  readonly batch: BatchSizes & { readonly tokensPerStep: number; readonly microBatchTokens: number };
  readonly mesh: MeshSizes;
  /** Of the rank that takes most. */
  readonly memory: MemoryByKind & { readonly total: number };
  /** Of a process that holds several ranks: all of theirs, and what it takes itself once. */
  readonly process?: { readonly ranks: number; readonly memory: MemoryByKind & { readonly total: number } };
  /** A rank of each stage of the pipeline; without one, any rank. */
  readonly ranks: readonly RankPlan[];
  /** Operations of one optimizer step, over all ranks. */
  readonly flops: {
    /** Products and visible attention scores, forward and backward. */
    readonly model: number;
    /** All that runs: elementwise work, the update, and what is computed again. */
    readonly hardware: number;
    /** 6 N D, the estimate for N parameters and D tokens (Kaplan et al., arXiv 2001.08361). */
    readonly sixND: number;
  };
  readonly time?: StepTime;
}

/** What a plan is made from. */
export interface PlanParts {
  readonly config: TrainConfig;
  readonly model: ModelShape;
  /** The null backend. */
  readonly backend: PlanningBackend;
  /** The axes of the ranks; a single rank by default. */
  readonly mesh?: MeshSizes;
  /** For the time of a step: what a rank reaches, and the links of its groups. */
  readonly machine?: Machine;
  /** Ranks that share a process: 1 by default. */
  readonly ranksInProcess?: number;
  /** Resident bytes of a process that has compiled the programs and holds no data: this one's, by default. */
  readonly baselineBytes?: number;
}

/** The model of a config, without its data: a tokenizer still to be trained counts with the size it will have. */
export async function modelToPlan(config: TrainConfig): Promise<ModelShape> {
  const { tokenizer, model } = config;
  if (model.type === undefined || model.vocab_size !== undefined) return buildModel(config, undefined);
  const trained = tokenizer?.train?.vocabulary_size;
  if (trained !== undefined || tokenizer?.path === undefined) return buildModel(config, trained);
  return buildModel(config, (await loadTokenizer(tokenizer.path)).vocabularySize);
}

/**
 * Plans training without running or allocating it: the engine of a rank is built as for training, on the null
 * backend, and its programs are looked at. Of several ranks one a stage of the pipeline is planned: the others are
 * alike.
 * @throws ConfigError for sizes that do not multiply or divide out, or where nothing is left to train.
 */
export async function planTraining(parts: PlanParts): Promise<TrainingPlan> {
  const { config, model, machine } = parts;
  const mesh = parts.mesh ?? new Mesh({}, 0).sizes;
  requireSplits(config, mesh, model.language.facts);
  const sizes = resolveBatch(config, batchRanks(mesh));
  const microBatchTokens = sizes.microBatchSize * config.data.sequence_length;
  const tokensPerStep = sizes.trainBatchSize * config.data.sequence_length;
  const stages: PlannedStage[] = [];
  for (let stage = 0; stage < mesh.pipeline; stage++) stages.push(await planStage(parts, mesh, sizes, stage));
  // Measured after compiling, which leaves its mark on JavaScript's heap in training as it does here.
  const baseline = parts.baselineBytes ?? process.memoryUsage.rss();
  const ranks = stages.map((stage): RankPlan => {
    const disk = diskOf(stage);
    return {
      place: stage.place,
      memory: withTotal(memoryOf(stage, baseline)),
      communication: communicationOf(stage, machine),
      ...(disk === undefined ? {} : { disk }),
    };
  });
  const first = stages[0]!;
  const worldSize = meshAxes.reduce((product, axis) => product * mesh[axis], 1);
  const ranksHere = parts.ranksInProcess ?? 1;
  const total = parameterCount(model.parameters);
  const frozen = [...model.parameters].filter(([name]) => matchesAny(name, config.frozen_parameters));
  const flops = {
    model: first.modelFlops * sizes.accumulationSteps * batchRanks(mesh),
    hardware: sum(stages, hardwareFlops) * (worldSize / mesh.pipeline),
    sixND: 6 * total * tokensPerStep,
  };
  const plan = {
    parameters: {
      total,
      trained: total - parameterCount(new Map(frozen)),
      modules: countModules(model.parameters),
    },
    dtype: activationDType(config),
    batch: { ...sizes, tokensPerStep, microBatchTokens },
    mesh,
    memory: ranks.reduce((most, { memory }) => (memory.total > most.total ? memory : most), ranks[0]!.memory),
    ...(ranksHere > 1 ? { process: { ranks: ranksHere, memory: memoryOfProcess(ranks, ranksHere) } } : {}),
    ranks,
    flops,
  };
  if (machine === undefined) return plan;
  const time = stepTime(config, stages, sizes, machine);
  const utilization = flops.model / (time.seconds * machine.flops * worldSize);
  return { ...plan, time: { machine, tokensPerSecond: tokensPerStep / time.seconds, utilization, ...time } };
}

function withTotal(memory: MemoryByKind): MemoryByKind & { readonly total: number } {
  return { ...memory, total: Object.values(memory).reduce((total, bytes) => total + bytes, 0) };
}

/** What ranks of every stage, as many of each, take in one process. */
function memoryOfProcess(
  ranks: readonly RankPlan[],
  count: number,
): MemoryByKind & { readonly total: number } {
  const of = (kind: keyof MemoryByKind): number =>
    kind === "baseline"
      ? ranks[0]!.memory.baseline
      : (sum(ranks, ({ memory }) => memory[kind]) * count) / ranks.length;
  const { total: _, ...kinds } = ranks[0]!.memory;
  const names = Object.keys(kinds) as (keyof MemoryByKind)[];
  return withTotal(Object.fromEntries(names.map((kind) => [kind, of(kind)])) as unknown as MemoryByKind);
}

function sum<Item>(items: readonly Item[], of: (item: Item) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
