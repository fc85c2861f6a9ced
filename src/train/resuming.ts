import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../base/errors.ts";
import { compareConfig, type JsonObject, latestCheckpoint } from "../checkpoint/index.ts";
import type { MeshSizes } from "../parallel/mesh.ts";
import {
  type BatchSizes,
  batchRanks,
  holdBatch,
  resolveBatch,
  resolveMesh,
  type TrainConfig,
} from "./config/index.ts";
import { checkpointFolder, type SavedRun, savedRun } from "./saving.ts";

/** Keys that may change between a checkpoint and its continuation: they do not touch what is learned. */
const freeKeys = [
  "output_dir",
  "max_steps",
  "epochs",
  "stop_at_loss",
  "evaluation",
  "checkpoint",
  "samples",
  "steps_per_print",
  "wall_clock_breakdown",
  "tensorboard",
  "activation_checkpointing",
  "data.cache_dir",
  "zero_optimization",
  "parallel",
  "tensor_parallel",
  "pipeline",
  "sequence_parallel",
  "memory",
  "aio",
  "comm",
  "elasticity",
];

/** Keys that may change with the number of ranks, since the batch is held. */
const batchKeys = ["train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"];

/** A checkpoint to go on from, and the run that wrote it. */
export interface Resumed {
  readonly folder: string;
  readonly saved: SavedRun;
}

/**
 * The checkpoint to go on from; undefined for a run from the start.
 * @throws ConfigError where `output_dir` holds another run's checkpoints, there is none to resume from, or the
 * config contradicts it.
 */
export async function checkpointToResume(
  config: TrainConfig,
  how: {
    readonly resume: boolean;
    /** Whether the run itself left what is there. */
    readonly restarted: boolean;
    readonly sizes: MeshSizes;
    readonly note: (line: string) => void;
  },
): Promise<Resumed | undefined> {
  const root = checkpointFolder(config.output_dir);
  if (!how.resume) {
    if (!how.restarted && hasCheckpoint(config)) {
      throw new ConfigError("output_dir_taken", "output_dir already holds the checkpoints of a run", {
        where: root,
        hint: "add --resume to continue it, or choose another output_dir",
      });
    }
    return undefined;
  }
  const { checkpoint, notes } = existsSync(root)
    ? await latestCheckpoint(root)
    : { checkpoint: undefined, notes: [] };
  for (const line of notes) how.note(line);
  if (checkpoint === undefined) {
    throw new ConfigError("nothing_to_resume", "there is no complete checkpoint to resume from", {
      where: join(config.output_dir, "checkpoints"),
      hint: "leave out --resume to start from the beginning",
    });
  }
  const saved = await savedRun(checkpoint.folder);
  const current = JSON.parse(JSON.stringify(config)) as JsonObject;
  const sameRanks = saved.batchRanks === batchRanks(how.sizes);
  compareConfig(saved.config, current, sameRanks ? freeKeys : [...freeKeys, ...batchKeys]);
  return { folder: checkpoint.folder, saved };
}

/** Whether a run left checkpoints in `output_dir`. */
export function hasCheckpoint(config: TrainConfig): boolean {
  const root = checkpointFolder(config.output_dir);
  return existsSync(root) && readdirSync(root).some((name) => name.startsWith("step-"));
}

/** The batch sizes of a run: those of the config, or on other ranks than the checkpoint's, its batch held. */
export function batchOfRun(
  config: TrainConfig,
  sizes: MeshSizes,
  saved: SavedRun | undefined,
  note: (line: string) => void,
): BatchSizes {
  const ranks = batchRanks(sizes);
  const choices = config.elasticity.enabled ? config.elasticity.micro_batch_sizes : undefined;
  if (saved !== undefined && saved.batchRanks !== ranks) {
    const batch = holdBatch(saved.batch, ranks, choices);
    const { trainBatchSize, microBatchSize, accumulationSteps } = batch;
    note(
      `the checkpoint's batch of ${trainBatchSize} rows is held: ${microBatchSize} micro x ${accumulationSteps} accumulation x ${ranks} rank${ranks === 1 ? "" : "s"}, on ${saved.batchRanks} before`,
    );
    return batch;
  }
  const { train_batch_size: batch, train_micro_batch_size_per_gpu: micro } = config;
  if (choices !== undefined && batch !== undefined && micro === undefined) {
    return holdBatch({ trainBatchSize: batch, microBatchSize: 1, accumulationSteps: 1 }, ranks, choices);
  }
  return resolveBatch(config, ranks);
}

/** @throws ConfigError where `elasticity` does not allow as many ranks. */
export function requireRanks(config: TrainConfig, ranks: number): void {
  const { enabled, min_gpus: fewest, max_gpus: most } = config.elasticity;
  if (!enabled || (ranks >= fewest && ranks <= (most ?? ranks))) return;
  throw new ConfigError("bad_ranks", "elasticity does not allow as many ranks", {
    where: ranks < fewest ? "elasticity.min_gpus" : "elasticity.max_gpus",
    expected: most === undefined ? `at least ${fewest}` : `${fewest} to ${most}`,
    received: String(ranks),
  });
}

/** The most ranks below `ranks` that a config can go on with, its batch held; `parallel.data` gives way. */
export function fewerRanks(
  config: TrainConfig,
  ranks: number,
  batch: BatchSizes,
): { readonly config: TrainConfig; readonly ranks: number; readonly sizes: MeshSizes } | undefined {
  const { data: _, ...parallel } = config.parallel;
  const smaller = { ...config, parallel };
  for (let fewer = ranks - 1; fewer >= config.elasticity.min_gpus; fewer--) {
    try {
      const sizes = resolveMesh(smaller, fewer);
      holdBatch(batch, batchRanks(sizes), config.elasticity.micro_batch_sizes);
      return { config: smaller, ranks: fewer, sizes };
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
    }
  }
  return undefined;
}
