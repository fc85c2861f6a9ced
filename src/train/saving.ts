import { join } from "node:path";
import { ConfigError } from "../base/errors.ts";
import {
  type JsonObject,
  loadPieces,
  loadState,
  type PendingSave,
  startSaving,
} from "../checkpoint/index.ts";
import { isUniversal } from "../checkpoint/universal/index.ts";
import { type LoaderState, saveTokenizer } from "../data/index.ts";
import { saveModelFolder } from "../models/index.ts";
import { onRankZero } from "./agreement.ts";
import { type BatchKeys, type BatchSizes, batchRanks, resolveBatch } from "./config/index.ts";
import type { TrainingEngine } from "./engine.ts";
import type { LossScaleState } from "./loss_scale.ts";
import type { Rank } from "./rank.ts";
import type { TrainingParts } from "./setup.ts";

/** Where a run stands, besides its tensors. */
export interface RunProgress {
  /** Steps taken, skipped ones included. */
  readonly step: number;
  /** Tokens trained on. */
  readonly tokens: number;
  /** Seconds of training, pauses left out. */
  readonly elapsedSeconds: number;
}

interface SavedState extends RunProgress {
  readonly updates: number;
  readonly loader: LoaderState;
  readonly lossScale: LossScaleState | null;
  readonly config: JsonObject;
  /** The batch sizes of the run, and how many ranks computed rows of their own; absent in those of one rank. */
  readonly batch?: BatchSizes;
  readonly batchRanks?: number;
}

/** What a checkpoint says of the run that wrote it. */
export interface SavedRun {
  readonly config: JsonObject;
  readonly batch: BatchSizes;
  /** Ranks that each computed rows of their own. */
  readonly batchRanks: number;
}

/** The folder of a run's checkpoints. */
export function checkpointFolder(outputDirectory: string): string {
  return join(outputDirectory, "checkpoints");
}

/**
 * Begins to save everything that a run needs to go on exactly where it is: `checkpoints/step-N/`. All ranks call it;
 * weights and states may change when `freeze` has been awaited.
 */
export async function startSavingRun(parts: TrainingParts, progress: RunProgress): Promise<PendingSave> {
  const { config, engine, dataset, batch, rank } = parts;
  const pieces = engine.pieces();
  const state: SavedState = {
    ...progress,
    updates: engine.updates,
    loader: dataset.train.state(),
    lossScale: engine.lossScale?.state() ?? null,
    config: JSON.parse(JSON.stringify(config)) as JsonObject,
    batch,
    batchRanks: rank === undefined ? 1 : batchRanks(rank.mesh.sizes),
  };
  return await startSaving(
    checkpointFolder(config.output_dir),
    progress.step,
    { pieces, state: state as unknown as JsonObject },
    { keepLast: config.checkpoint.keep_last, ...(rank === undefined ? {} : { group: rank.saving }) },
  );
}

/** What a checkpoint was written by. @throws ConfigError where no run of Slipstream did. */
export async function savedRun(folder: string): Promise<SavedRun> {
  const state = await loadState(folder, { verified: true });
  if (isUniversal(state)) {
    throw new ConfigError("converted_checkpoint", "a converted checkpoint is not of a run to resume", {
      where: folder,
      hint: "leave out --resume, and name the folder that was converted into: checkpoint.load_universal",
    });
  }
  const saved = state as unknown as SavedState;
  const { config, batch, batchRanks: ranks = 1 } = saved;
  return { config, batch: batch ?? resolveBatch(config as BatchKeys), batchRanks: ranks };
}

/** Puts a run back to where a checkpoint was taken. */
export async function restoreRun(parts: TrainingParts, folder: string): Promise<RunProgress> {
  const { engine, dataset } = parts;
  const saved = (await loadState(folder, { verified: true })) as unknown as SavedState;
  await loadPieces(folder, engine.pieces());
  dataset.train.restore(saved.loader);
  if (saved.lossScale !== null) engine.lossScale?.restore(saved.lossScale);
  engine.restored(saved.updates);
  const { step, tokens, elapsedSeconds } = saved;
  return { step, tokens, elapsedSeconds };
}

/** Writes the trained model as a Hugging Face folder with its tokenizer: `output_dir/model`. All ranks call it. */
export async function saveTrainedModel(parts: TrainingParts): Promise<string> {
  const { config, family, modelConfig, parameters, tokenizer, dtype } = parts;
  const folder = join(config.output_dir, "model");
  const { beginToken, endToken } = tokenizer;
  const tokens = {
    ...(beginToken === undefined ? {} : { bos_token_id: beginToken }),
    ...(endToken === undefined ? {} : { eos_token_id: endToken }),
  };
  const saved = { family, config: { ...tokens, ...modelConfig }, parameters, dtype };
  await gatheringParameters(parts, (valuesOf) =>
    saveModelFolder(folder, { ...saved, valuesOf }, (temporary) => saveTokenizer(tokenizer, temporary)),
  );
  return folder;
}

/**
 * Does on rank 0 what needs the whole values of parameters, one after another: the others give their parts as they
 * are asked for. All ranks call it.
 */
export async function gatheringParameters(
  { engine, rank }: TrainingParts,
  work: (valuesOf: (name: string) => Promise<Float32Array>) => Promise<void>,
): Promise<void> {
  const world = rank?.world;
  if (world === undefined || holdsWhole(engine, rank)) {
    await onRankZero(world, () => work(async (name) => await engine.wholeParameter(name)));
    return;
  }
  if (world.rank === 0) {
    await work(async (name) => {
      await world.exchange(Buffer.from(name));
      return await engine.gatherParameter(name);
    });
    await world.exchange(new Uint8Array(0));
    return;
  }
  for (;;) {
    const [asked] = await world.exchange(new Uint8Array(0));
    if (asked === undefined || asked.length === 0) return;
    await engine.gatherParameter(Buffer.from(asked).toString());
  }
}

/** Whether every rank holds all parameters whole. */
function holdsWhole({ layout }: TrainingEngine, rank: Rank | undefined): boolean {
  const { tensor, pipeline } = rank?.mesh.sizes ?? { tensor: 1, pipeline: 1 };
  if (tensor > 1 || pipeline > 1) return false;
  return [...layout.parameters.values()].every(({ parameter }) => parameter === "whole");
}
