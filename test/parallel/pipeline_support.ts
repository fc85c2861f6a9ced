import { type DType, encode, isFloat, type TensorData } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { elementCount } from "../../src/base/shape.ts";
import { familyOf, packSequences } from "../../src/models/index.ts";
import { ParameterSpace } from "../../src/nn/parameters.ts";
import { type CutOptions, cutPipeline } from "../../src/parallel/pipeline/cut.ts";
import { type PartitionMethod, partitionBlocks } from "../../src/parallel/pipeline/partition.ts";
import type { ScheduleTable } from "../../src/parallel/pipeline/schedules.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { createLocalWorld } from "../../src/runtime/native/local_world.ts";
import { createReferenceBackend } from "../../src/runtime/reference/backend.ts";
import type { MicroBatchResult, TrainingBatch } from "../../src/train/micro_batches.ts";
import { PipelineChannels } from "../../src/train/pipeline/channels.ts";
import { PipelineRunner, sharingRanks } from "../../src/train/pipeline/runner.ts";
import {
  accumulateGraph,
  evaluationGraph,
  gradientName,
  type TrainedModel,
} from "../../src/train/programs.ts";
import { wholeProgram } from "../../src/train/sharding.ts";

/** A tiny Llama, deep enough for stages. */
export function tinyLlama(
  layers: number,
  options: { tied?: boolean; dtype?: DType; frozen?: string[] } = {},
) {
  const config = {
    model_type: "llama",
    vocab_size: 40,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: layers,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 32,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: "silu",
    tie_word_embeddings: options.tied ?? false,
  };
  const space = ParameterSpace.create();
  const language = familyOf(config, "test").build(config, space, "test");
  const model = {
    language,
    parameters: space.table,
    layout: { frozen: new Set(options.frozen ?? []) },
    dtype: options.dtype ?? "f32",
  } as unknown as TrainedModel;
  return model;
}

/** The reference with all of its memory in float64. */
export function wideReference(): Backend {
  const reference = createReferenceBackend();
  return {
    ...reference,
    allocate: (dtype, elements) => reference.allocate(isFloat(dtype) ? "f64" : dtype, elements),
  };
}

/** Batches of two sequences each, all of `tokens` tokens. */
export function randomBatches(model: TrainedModel, count: number, tokens = 12): TrainingBatch[] {
  const source = new PhiloxStream(3, 1);
  const sequence = (length: number): number[] =>
    Array.from({ length }, () => Math.floor(Math.abs(source.nextNormal()) * 1000) % 40);
  return Array.from({ length: count }, (_, index) => {
    const first = 3 + (index % 4);
    return packSequences([sequence(first + 1), sequence(tokens - first + 1)], model.language.facts);
  });
}

/** Random weights and cleared gradients by the names of their leaves: alike for every call. */
export function memoryOf(model: TrainedModel, dtype: "f32" | "f64"): Record<string, TensorData> {
  const memory: Record<string, TensorData> = {};
  let stream = 0;
  for (const { name, shape } of model.parameters.values()) {
    const source = new PhiloxStream(11, stream++);
    const values = Array.from({ length: elementCount(shape) }, () => Math.fround(source.nextNormal() * 0.3));
    memory[name] = encode(dtype, values);
    memory[gradientName(name)] = encode(dtype, new Array(values.length).fill(0));
  }
  return memory;
}

/** Loss and gradients of micro-batches by one program on one rank. */
export async function runWhole(
  model: TrainedModel,
  backend: Backend,
  batches: readonly TrainingBatch[],
  weight: number,
  dtype: "f32" | "f64",
): Promise<{ loss: number; memory: Record<string, TensorData> }> {
  const memory = memoryOf(model, dtype);
  const executable = backend.compile(accumulateGraph(model, tokensOf(batches), batches.length > 1));
  const [sum, factor] = [backend.allocate("f32", 1), backend.allocate("f32", 1)];
  factor[0] = weight;
  let loss = 0;
  for (const batch of batches) {
    const { tokens, targets, positions, offsets } = batch;
    const symbols = { tokens: tokens.length, offsets: offsets.length };
    await executable.run(
      { ...memory, loss: sum, weight: factor, tokens, targets, positions, offsets },
      symbols,
    );
    loss += sum[0]!;
  }
  executable.dispose();
  return { loss, memory };
}

/** What one rank of a pipeline came to. */
export interface RankOutcome extends MicroBatchResult {
  readonly memory: Record<string, TensorData>;
  readonly evaluated: number;
}

/** How to run a pipeline. */
export interface PipelineSetting extends Partial<Omit<CutOptions, "partition" | "gradientName">> {
  readonly ranks: number;
  readonly chunks?: number;
  readonly schedule: (ranks: number, microBatches: number) => ScheduleTable;
  readonly partition?: PartitionMethod | readonly number[];
  readonly backend: () => Backend;
  readonly dtype: "f32" | "f64";
}

/** Runs micro-batches through a pipeline, all ranks side by side. */
export async function runPipeline(
  model: TrainedModel,
  batches: readonly TrainingBatch[],
  weight: number,
  setting: PipelineSetting,
): Promise<RankOutcome[]> {
  const { ranks, chunks = 1, schedule, partition = "balanced", backend, dtype, ...rest } = setting;
  const tokens = tokensOf(batches);
  const graph = accumulateGraph(model, tokens, batches.length > 1);
  const split = partitionBlocks(graph, ranks * chunks, partition);
  const cut = cutPipeline(graph, { ...rest, partition: split, gradientName });
  const groups = createLocalWorld(ranks, { timeoutSeconds: 60 });
  return await Promise.all(
    groups.map(async (group) => {
      const own = backend();
      const memory = memoryOf(model, dtype);
      const runner = new PipelineRunner({
        backend: own,
        channels: await PipelineChannels.open(group, sharingRanks(cut, ranks)),
        cut,
        evaluation: () => {
          const batches = wholeProgram(evaluationGraph(model, tokens));
          return { cut: cutPipeline(batches.graph, { partition: split, gradientName }), batches };
        },
        batches: wholeProgram(graph),
        schedule: (microBatches) => schedule(ranks, microBatches),
        chunks,
        compile: (stage) => own.compile(stage),
        bindings: memory,
        gradientName,
        modelFlops: 0,
      });
      const result = await runner.run(batches, weight);
      const evaluated = await runner.evaluate(batches[0]!);
      runner.dispose();
      group.close();
      return { ...result, memory, evaluated };
    }),
  );
}

function tokensOf(batches: readonly TrainingBatch[]): number {
  return Math.max(...batches.map(({ tokens }) => tokens.length));
}
