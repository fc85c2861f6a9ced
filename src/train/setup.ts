import { dirname, join } from "node:path";
import { bytesPerElement, type DType } from "../base/dtype.ts";
import { ConfigError, DataError } from "../base/errors.ts";
import { elementCount } from "../base/shape.ts";
import { writeFolderAtomically } from "../checkpoint/index.ts";
import {
  type DataLoader,
  type Dataset,
  documentsOf,
  loadTokenizer,
  openDataset,
  openSources,
  saveTokenizer,
  type Tokenizer,
  trainTokenizer,
} from "../data/index.ts";
import type { ConfigJson, LanguageModel } from "../models/family.ts";
import { familyOf, type ModelFamily, readModelConfig, readWeights } from "../models/index.ts";
import { ParameterSpace, type ParameterTable } from "../nn/parameters.ts";
import { createSchedule, type Schedule } from "../optim/schedules/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { onRankZero } from "./agreement.ts";
import { type BatchSizes, batchRanks, matchesAny, requireSplits, type TrainConfig } from "./config/index.ts";
import { TrainingEngine } from "./engine.ts";
import { activationDType, createOptimizer, recomputeSetting, zeroSettings } from "./engine_settings.ts";
import { totalBytes } from "./layout.ts";
import { requireMemory } from "./memory.ts";
import { buildPlaced } from "./offload/placement.ts";
import type { OffloadSettings } from "./offload/settings.ts";
import type { Rank } from "./rank.ts";
import { encodePrompts, type SamplePrompt } from "./sample_prompts.ts";
import type { SharedParts } from "./shared_parts.ts";
import { type SplitModel, splitModel } from "./split_model.ts";

/** Everything that a config describes, built. */
export interface TrainingParts {
  readonly config: TrainConfig;
  readonly batch: BatchSizes;
  readonly family: ModelFamily;
  /** The model's `config.json`. */
  readonly modelConfig: ConfigJson;
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
  readonly tokenizer: Tokenizer;
  readonly samplePrompts: readonly SamplePrompt[];
  /** The rows of this rank. */
  readonly dataset: Pick<Dataset, "train" | "validation">;
  readonly engine: TrainingEngine;
  readonly schedule: Schedule;
  readonly dtype: "f32" | "bf16" | "f16";
  /** This rank among those that train together; undefined where there is one alone. */
  readonly rank: Rank | undefined;
}

/** A model without weights. */
export interface ModelShape {
  readonly family: ModelFamily;
  readonly modelConfig: ConfigJson;
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
}

/** Builds the model of a config. @param vocabularySize of the tokenizer, where the config names none. */
export async function buildModel(
  config: TrainConfig,
  vocabularySize: number | undefined,
): Promise<ModelShape> {
  const space = ParameterSpace.create();
  if (config.model.type === undefined) {
    const { config: modelConfig, where } = await readModelConfig(config.model.path);
    const family = familyOf(modelConfig, where);
    const language = family.build(modelConfig, space, where);
    checkLength(config, language);
    return { family, modelConfig, language, parameters: space.table };
  }
  const { type, ...keys } = config.model;
  const modelConfig = { model_type: type, ...keys, vocab_size: keys.vocab_size ?? vocabularySize };
  const family = familyOf(modelConfig, "model");
  const language = family.build(modelConfig, space, "model");
  checkLength(config, language);
  return { family, modelConfig, language, parameters: space.table };
}

function checkLength(config: TrainConfig, { facts }: LanguageModel): void {
  if (config.data.sequence_length <= facts.maximumPositions) return;
  throw new ConfigError("sequence_too_long", "rows are longer than the model's positions", {
    where: "data.sequence_length",
    expected: `at most ${facts.maximumPositions} (max_position_embeddings)`,
    received: String(config.data.sequence_length),
  });
}

/** Where a run keeps the tokenizer that it trained. */
function trainedTokenizerFolder(config: TrainConfig): string {
  return join(config.output_dir, "tokenizer");
}

/**
 * The tokenizer of a config: loaded from a folder, or trained on the data and kept in `output_dir`.
 * @param resumes takes the one that the run trained when it began; a new run trains its own, since one that an
 * earlier run left there may be of other data or another size
 * @param note told what takes a while
 */
export async function prepareTokenizer(
  config: TrainConfig,
  resumes: boolean,
  note: (line: string) => void,
): Promise<Tokenizer> {
  const section = config.tokenizer;
  if (section?.train !== undefined) {
    const folder = trainedTokenizerFolder(config);
    if (resumes) return loadTokenizer(folder);
    const { vocabulary_size: vocabularySize } = section.train;
    note(`training a tokenizer of ${vocabularySize} tokens`);
    const tokenizer = await trainTokenizer(textsOf(config), { vocabularySize });
    await writeFolderAtomically(folder, (temporary) => saveTokenizer(tokenizer, temporary));
    return tokenizer;
  }
  const path = section?.path ?? (config.model.type === undefined ? config.model.path : undefined);
  if (path === undefined) {
    throw new ConfigError("no_tokenizer", "the config does not say how text becomes tokens", {
      where: "tokenizer",
      expected: "tokenizer.path, or tokenizer.train.vocabulary_size",
    });
  }
  return loadTokenizer(path.endsWith("tokenizer.json") ? dirname(path) : path);
}

async function* textsOf(config: TrainConfig): AsyncGenerator<string> {
  const sources = await openSources(config.data.train, sourceOptions(config));
  for await (const document of documentsOf(sources)) {
    if (typeof document.content === "string") yield (document.prompt ?? "") + document.content;
  }
}

function sourceOptions({ data }: TrainConfig) {
  return {
    ...(data.format === "auto" ? {} : { format: data.format }),
    ...(data.text_field === undefined ? {} : { textField: data.text_field }),
    ...(data.prompt_field === undefined ? {} : { promptField: data.prompt_field }),
    ...(data.completion_field === undefined ? {} : { completionField: data.completion_field }),
  };
}

/** Opens the data of a config. */
export function prepareData(
  config: TrainConfig,
  batch: BatchSizes,
  tokenizer: Tokenizer,
  modelVocabularySize: number,
  note: (line: string) => void,
): Promise<Dataset> {
  const { data } = config;
  return openDataset({
    train: data.train,
    ...(data.validation === undefined ? {} : { validation: data.validation }),
    ...sourceOptions(config),
    tokenizer,
    modelVocabularySize,
    sequenceLength: data.sequence_length,
    batchSize: batch.microBatchSize,
    packing: data.packing,
    documentBoundaries: data.document_boundaries,
    shuffle: data.shuffle,
    seed: config.seed,
    cacheDirectory: data.cache_dir ?? join(config.output_dir, "cache"),
    onCacheRebuild: (reason) => note(`tokenising again: ${reason}`),
  });
}

/**
 * The engine of a config for a model.
 * @param residentBytes what the process holds already, for `memory.limit`
 */
export function buildEngine(
  config: TrainConfig,
  batch: BatchSizes,
  model: ModelShape,
  backend: Backend,
  split?: SplitModel,
  residentBytes = process.memoryUsage.rss(),
): TrainingEngine {
  const dtype: DType = activationDType(config);
  const noDecay = config.optimizer.params.no_decay;
  const unknown = [...config.frozen_parameters].filter(
    (pattern) => ![...model.parameters.keys()].some((name) => matchesAny(name, [pattern])),
  );
  if (unknown.length > 0) {
    throw new ConfigError("unknown_parameters", "a pattern of frozen parameters matches nothing", {
      where: "frozen_parameters",
      received: unknown.join(", "),
      expected: `names such as ${[...model.parameters.keys()].slice(0, 3).join(", ")}`,
    });
  }
  const build = (offload: OffloadSettings | undefined): TrainingEngine =>
    new TrainingEngine({
      backend,
      language: model.language,
      parameters: model.parameters,
      dtype,
      optimizer: createOptimizer(config.optimizer),
      microBatchRows: batch.microBatchSize,
      microBatchTokens: batch.microBatchSize * config.data.sequence_length,
      accumulationSteps: batch.accumulationSteps,
      gradientClipping: config.gradient_clipping,
      decays: (name) => !matchesAny(name, noDecay),
      isFrozen: (name) => matchesAny(name, config.frozen_parameters),
      recompute: recomputeSetting(config),
      tiles: config.activation_checkpointing.mlp_tiles,
      zero: zeroSettings(config),
      ...(dtype === "f16" ? { lossScale: config.fp16 } : {}),
      ...split,
      ...(offload === undefined ? {} : { offload }),
    });
  const rank = split?.rank;
  const facts = {
    ranks: rank?.ranksInProcess ?? 1,
    residentBytes,
    computesInHalf: dtype === "bf16",
  };
  return buildPlaced(config, facts, build, (engine) => ({
    arena: engine.memory.arena,
    prepared: engine.memory.prepared,
    states:
      Object.values(engine.residentBytes).reduce((sum, bytes) => sum + bytes, 0) +
      (engine.between?.heldBytes ?? 0),
  }));
}

/** The engine of a config. @throws RunError where it would not fit in this machine's memory. */
function buildFittingEngine(
  config: TrainConfig,
  batch: BatchSizes,
  model: ModelShape,
  backend: Backend,
  split: SplitModel | undefined,
): TrainingEngine {
  const rank = split?.rank;
  const parameters = parameterCount(model.parameters);
  const ranks = rank?.ranksInProcess ?? 1;
  const elements = ranks * stateElements(config, parameters, rank);
  const state = {
    what: `weights, gradients and optimizer states of ${parameters.toLocaleString("en")} parameters${ranks > 1 ? ` on ${ranks} ranks` : ""}`,
    bytes: elements * bytesPerElement("f32"),
    hint: "make the model smaller, or train on a machine with more memory",
  };
  // What may go to disk is not known to be needed in memory.
  const mayLeave = config.memory.limit !== undefined || goesToDisk(config);
  if (!mayLeave) requireMemory([state]);
  const engine = buildEngine(config, batch, model, backend, split);
  const activations = {
    what: "activations and packed weights",
    bytes: ranks * (engine.memory.arena + engine.memory.prepared),
    hint: "lower train_micro_batch_size_per_gpu or data.sequence_length, or set activation_checkpointing.mode",
  };
  requireMemory([{ ...state, bytes: ranks * totalBytes(engine.buffers.values()) }, activations]);
  return engine;
}

/** Whether a config sends states to disk. */
function goesToDisk({ zero_optimization: zero }: TrainConfig): boolean {
  return zero.offload_optimizer.device === "nvme" || zero.offload_param.device === "nvme";
}

/** About how many elements of parameters, gradients and optimizer states one rank keeps. */
function stateElements(config: TrainConfig, parameters: number, rank: Rank | undefined): number {
  const states = createOptimizer(config.optimizer).states.length;
  if (rank === undefined) return parameters * (2 + states);
  const { data, tensor, pipeline } = rank.mesh.sizes;
  const { stage } = config.zero_optimization;
  const share = (from: number): number => (stage >= from ? 1 / data : 1);
  return (parameters / (tensor * pipeline)) * (share(3) + share(2) + states * share(1));
}

/** Builds everything for a rank of a config and gives the weights their first values. */
export async function setUpTraining(
  config: TrainConfig,
  batch: BatchSizes,
  shared: SharedParts,
  backend: Backend,
  rank: Rank | undefined,
): Promise<TrainingParts> {
  const world = rank?.world;
  const tokenizer = (await onRankZero(world, () => shared.tokenizer())) ?? (await shared.tokenizer());
  const model = await buildModel(config, tokenizer.vocabularySize);
  const samplePrompts = encodePrompts(config, tokenizer, model.language);
  if (rank !== undefined) requireSplits(config, rank.mesh.sizes, model.language.facts);
  // What is wrong with the sizes or the data is told before weights are read or made.
  const split = rank === undefined ? undefined : await splitModel(config, batch, model, rank);
  const engine = buildFittingEngine(config, batch, model, backend, split);
  try {
    const open = () => shared.dataset(tokenizer, model.language.facts.vocabularySize);
    const dataset = rowsOfRank((await onRankZero(world, open)) ?? (await open()), rank);
    await fillWeights(config, model, engine);
    const { type, params } = config.scheduler;
    const schedule = createSchedule(type, params, config.optimizer.params.lr);
    const dtype = activationDType(config);
    return { config, batch, ...model, tokenizer, samplePrompts, dataset, engine, schedule, dtype, rank };
  } catch (error) {
    engine.dispose();
    throw error;
  }
}

/** The rows that a rank computes: its own of each global batch, the same as those of its tensor, sequence and pipeline ranks. */
function rowsOfRank(dataset: Dataset, rank: Rank | undefined): Pick<Dataset, "train" | "validation"> {
  if (rank === undefined) return dataset;
  const { place, sizes } = rank.mesh;
  const index = place.data * sizes.expert + place.expert;
  const of = (loader: DataLoader): DataLoader => loader.forRank(index, batchRanks(sizes));
  return {
    train: of(dataset.train),
    validation: dataset.validation === undefined ? undefined : of(dataset.validation),
  };
}

/** Gives the weights their first values: those of the folder to fine-tune, or random ones. */
async function fillWeights(config: TrainConfig, model: ModelShape, engine: TrainingEngine): Promise<void> {
  if (config.model.type !== undefined) {
    await engine.initialize(config.seed);
    return;
  }
  // One parameter after another passes through the same memory, and each rank keeps its part.
  const { family, parameters } = model;
  const largest = Math.max(...[...parameters.values()].map(({ shape }) => elementCount(shape)));
  const memory = new Float32Array(largest);
  const partOf = (name: string): Float32Array =>
    memory.subarray(0, elementCount(parameters.get(name)!.shape));
  await readWeights(config.model.path, family, parameters, partOf, (name) =>
    engine.setParameter(name, partOf(name)),
  );
  engine.weightsChanged();
}

/** Number of weights of a model. */
export function parameterCount(parameters: ParameterTable): number {
  let count = 0;
  for (const { shape } of parameters.values()) count += elementCount(shape);
  return count;
}

/** Updates that a config asks for. @throws DataError where the data makes up less than one. */
export function totalSteps(config: TrainConfig, batch: BatchSizes, dataset: Pick<Dataset, "train">): number {
  if (config.max_steps !== undefined) return config.max_steps;
  const steps = Math.floor(((config.epochs ?? 1) * dataset.train.rowCount) / batch.trainBatchSize);
  if (steps > 0) return steps;
  throw new DataError("too_little_data", "the data make up less than one step", {
    expected: `at least ${batch.trainBatchSize} rows of ${config.data.sequence_length} tokens`,
    received: `${dataset.train.rowCount} rows`,
    hint: "set max_steps, raise epochs, or lower the batch size",
  });
}
