import type { SymbolValues } from "../../base/shape.ts";
import { modelFlops } from "../../compiler/compile.ts";
import { loadTokenizer } from "../../data/index.ts";
import type { Machine, PlannedExecutable, PlanningBackend } from "../../runtime/planning.ts";
import { type BatchSizes, matchesAny, resolveBatch, type TrainConfig } from "../config/index.ts";
import { layOutParameters, type ParameterLayout } from "../layout.ts";
import { accumulateGraph, clearGraph, evaluationGraph, normGraph, updateGraph } from "../programs.ts";
import {
  activationDType,
  buildModel,
  createOptimizer,
  type ModelShape,
  parameterCount,
  recomputeSetting,
} from "../setup.ts";
import { countModules, type ModuleCount } from "./modules.ts";

/** Bytes of resident memory by what they are for. */
export interface MemoryByKind {
  /** The float32 weights. */
  readonly parameters: number;
  readonly gradients: number;
  /** The optimizer's buffers. */
  readonly optimizer: number;
  /** Values that live inside a run of the training programs. */
  readonly activations: number;
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
  /** Model FLOPs over what the machine could do in that time. */
  readonly utilization: number;
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
  readonly memory: MemoryByKind & { readonly total: number };
  /** Operations of one optimizer step. */
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
  /** For the time of a step. */
  readonly machine?: Machine;
  /** Resident bytes of a process that has compiled the programs and holds no data: this one's, by default. */
  readonly baselineBytes?: number;
}

interface Programs {
  readonly train: PlannedExecutable;
  readonly clear: PlannedExecutable | undefined;
  readonly norm: PlannedExecutable;
  readonly update: PlannedExecutable;
  readonly evaluate: PlannedExecutable | undefined;
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
 * Plans training without running or allocating it: the same programs that the engine compiles, by the null
 * backend.
 * @throws ConfigError for batch sizes that do not multiply out, or where nothing is left to train.
 */
export function planTraining(parts: PlanParts): TrainingPlan {
  const { config, model } = parts;
  const sizes = resolveBatch(config, 1);
  const microBatchTokens = sizes.microBatchSize * config.data.sequence_length;
  const tokensPerStep = sizes.trainBatchSize * config.data.sequence_length;
  const layout = layOutParameters(
    model.parameters,
    (name) => !matchesAny(name, config.optimizer.params.no_decay),
    (name) => matchesAny(name, config.frozen_parameters),
  );
  const dtype = activationDType(config);
  const trainedModel = { language: model.language, parameters: model.parameters, layout, dtype };
  const accumulates = sizes.accumulationSteps > 1;
  const graph = accumulateGraph(trainedModel, microBatchTokens, accumulates);
  const symbols = { tokens: microBatchTokens, offsets: sizes.microBatchSize + 1 };
  const recompute = recomputeSetting(config);
  const { backend } = parts;
  const programs: Programs = {
    train: backend.compile(graph, { recompute }),
    clear: accumulates
      ? backend.compile(clearGraph([{ name: "all", gradientStart: 0, length: layout.elements.gradients }]))
      : undefined,
    norm: backend.compile(normGraph(layout.sweeps)),
    update: backend.compile(updateGraph(layout, createOptimizer(config.optimizer))),
    evaluate:
      config.data.validation === undefined
        ? undefined
        : backend.compile(evaluationGraph(trainedModel, microBatchTokens)),
  };
  // Measured after compiling, which leaves its mark on JavaScript's heap in training as it does here.
  const baseline = parts.baselineBytes ?? process.memoryUsage.rss();
  const states = createOptimizer(config.optimizer).states.length;
  const memory = memoryByKind(programs, layout, states, sizes, microBatchTokens, baseline);
  const total = parameterCount(model.parameters);
  const frozen = [...layout.frozen].map((name) => [name, model.parameters.get(name)!] as const);
  const flops = {
    model: modelFlops(graph, symbols) * sizes.accumulationSteps,
    hardware: sumOverStep(programs, sizes, (program, run) => program.cost(run).flops, symbols),
    sixND: 6 * total * tokensPerStep,
  };
  const plan = {
    parameters: {
      total,
      trained: total - parameterCount(new Map(frozen)),
      modules: countModules(model.parameters),
    },
    dtype,
    batch: { ...sizes, tokensPerStep, microBatchTokens },
    memory: { ...memory, total: Object.values(memory).reduce((sum, bytes) => sum + bytes, 0) },
    flops,
  };
  const { machine } = parts;
  if (machine === undefined) return plan;
  const seconds = sumOverStep(programs, sizes, (program, run) => program.seconds(machine, run), symbols);
  const utilization = flops.model / (seconds * machine.flops);
  return { ...plan, time: { machine, seconds, tokensPerSecond: tokensPerStep / seconds, utilization } };
}

/** Adds up what the programs of one optimizer step take. */
function sumOverStep(
  { train, clear, norm, update }: Programs,
  { accumulationSteps }: BatchSizes,
  of: (program: PlannedExecutable, symbols: SymbolValues) => number,
  symbols: SymbolValues,
): number {
  const cleared = clear === undefined ? 0 : of(clear, {});
  return accumulationSteps * of(train, symbols) + cleared + of(norm, {}) + of(update, {});
}

function memoryByKind(
  { train, clear, norm, update, evaluate }: Programs,
  layout: ParameterLayout,
  states: number,
  { accumulationSteps, microBatchSize }: BatchSizes,
  microBatchTokens: number,
  baseline: number,
): MemoryByKind {
  const training = [train, norm, update, ...(clear === undefined ? [] : [clear])];
  const all = [...training, ...(evaluate === undefined ? [] : [evaluate])];
  const sum = (kind: "prepared" | "constants"): number =>
    training.reduce((total, { memory }) => total + memory[kind], 0);
  const held = evaluate?.memory;
  // Tokens, targets and positions, and where each row begins.
  const batchBytes = 4 * (3 * microBatchTokens + microBatchSize + 1);
  return {
    parameters: 4 * layout.elements.parameters,
    gradients: 4 * layout.elements.gradients,
    optimizer: 4 * layout.elements.states * states,
    // One arena serves every program: they run one after another.
    activations: Math.max(...all.map(({ memory }) => memory.arena)),
    packedWeights: sum("prepared"),
    constants: sum("constants"),
    // The thread pool's work space serves every program.
    scratch: Math.max(...all.map(({ memory }) => memory.scratch)),
    evaluation: held === undefined ? 0 : held.prepared + held.constants,
    data: accumulationSteps * batchBytes,
    baseline,
  };
}
