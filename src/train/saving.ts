import { join } from "node:path";
import { ConfigError } from "../base/errors.ts";
import {
  type JsonObject,
  loadTrainingState,
  saveTrainingState,
  type TensorSource,
} from "../checkpoint/index.ts";
import { type LoaderState, saveTokenizer } from "../data/index.ts";
import { saveModelFolder } from "../models/index.ts";
import { onRankZero } from "./agreement.ts";
import { type BatchKeys, type BatchSizes, batchRanks, resolveBatch } from "./config/index.ts";
import type { LossScaleState } from "./loss_scale.ts";
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

/** Saves everything that a run needs to go on exactly where it is: `checkpoints/step-N/`. All ranks call it. */
export async function saveRun(parts: TrainingParts, progress: RunProgress): Promise<string> {
  const root = checkpointFolder(parts.config.output_dir);
  await onRankZero(parts.rank?.world, () => writeRun(root, parts, progress));
  return join(root, `step-${progress.step}`);
}

async function writeRun(root: string, parts: TrainingParts, progress: RunProgress): Promise<void> {
  const { config, engine, parameters, dataset, batch, rank } = parts;
  const weights = engine.weights;
  const tensors: TensorSource[] = [];
  for (const { name, shape } of parameters.values()) {
    tensors.push({ name: `parameters/${name}`, dtype: "f32", shape, data: () => weights.get(name)! });
    for (const state of engine.stateNames) {
      const values = engine.stateOf(state, name);
      if (values !== undefined)
        tensors.push({ name: `${state}/${name}`, dtype: "f32", shape, data: () => values });
    }
  }
  const state: SavedState = {
    ...progress,
    updates: engine.updates,
    loader: dataset.train.state(),
    lossScale: engine.lossScale?.state() ?? null,
    config: JSON.parse(JSON.stringify(config)) as JsonObject,
    batch,
    batchRanks: rank === undefined ? 1 : batchRanks(rank.mesh.sizes),
  };
  await saveTrainingState(
    root,
    progress.step,
    { tensors, state: state as unknown as JsonObject },
    { keepLast: config.checkpoint.keep_last },
  );
}

/** What a checkpoint was written by. */
export async function savedRun(folder: string): Promise<SavedRun> {
  const { state, reader } = await loadTrainingState(folder, { verified: true });
  await reader.close();
  const { config, batch, batchRanks: ranks = 1 } = state as unknown as SavedState;
  return { config, batch: batch ?? resolveBatch(config as BatchKeys), batchRanks: ranks };
}

/** Puts a run back to where a checkpoint was taken. */
export async function restoreRun(parts: TrainingParts, folder: string): Promise<RunProgress> {
  const { engine, parameters, dataset } = parts;
  const { state, reader } = await loadTrainingState(folder, { verified: true });
  const saved = state as unknown as SavedState;
  try {
    const weights = engine.weights;
    const fill = async (stored: string, values: Float32Array): Promise<void> => {
      if (!reader.has(stored)) {
        throw new ConfigError("missing_state", "the checkpoint lacks a tensor of this run", {
          where: folder,
          received: `no "${stored}"`,
          hint: "resume with the model and optimizer that the checkpoint was written with",
        });
      }
      await reader.readInto(stored, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    };
    for (const name of parameters.keys()) {
      await fill(`parameters/${name}`, weights.get(name)!);
      for (const kind of engine.stateNames) {
        const values = engine.stateOf(kind, name);
        if (values !== undefined) await fill(`${kind}/${name}`, values);
      }
    }
  } finally {
    await reader.close();
  }
  dataset.train.restore(saved.loader);
  if (saved.lossScale !== null) engine.lossScale?.restore(saved.lossScale);
  engine.restored(saved.updates);
  const { step, tokens, elapsedSeconds } = saved;
  return { step, tokens, elapsedSeconds };
}

/** Writes the trained model as a Hugging Face folder with its tokenizer: `output_dir/model`. All ranks call it. */
export async function saveTrainedModel(parts: TrainingParts): Promise<string> {
  const folder = join(parts.config.output_dir, "model");
  await onRankZero(parts.rank?.world, () => writeModel(folder, parts));
  return folder;
}

async function writeModel(folder: string, parts: TrainingParts): Promise<void> {
  const { engine, family, modelConfig, parameters, tokenizer, dtype } = parts;
  const weights = engine.weights;
  const saved = {
    family,
    config: modelConfig,
    parameters,
    dtype,
    valuesOf: (name: string) => weights.get(name)!,
  };
  const { beginToken, endToken } = tokenizer;
  const tokens = {
    ...(beginToken === undefined ? {} : { bos_token_id: beginToken }),
    ...(endToken === undefined ? {} : { eos_token_id: endToken }),
  };
  await saveModelFolder(folder, { ...saved, config: { ...tokens, ...modelConfig } }, (temporary) =>
    saveTokenizer(tokenizer, temporary),
  );
}
