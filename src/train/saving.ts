import { join } from "node:path";
import { type JsonObject, loadPieces, loadState, saveTrainingState } from "../checkpoint/index.ts";
import { type LoaderState, saveTokenizer } from "../data/index.ts";
import { saveModelFolder } from "../models/index.ts";
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
}

/** The folder of a run's checkpoints. */
export function checkpointFolder(outputDirectory: string): string {
  return join(outputDirectory, "checkpoints");
}

/** Saves everything that a run needs to go on exactly where it is: `checkpoints/step-N/`. */
export async function saveRun(parts: TrainingParts, progress: RunProgress): Promise<string> {
  const { config, engine, dataset } = parts;
  const pieces = engine.pieces();
  const state: SavedState = {
    ...progress,
    updates: engine.updates,
    loader: dataset.train.state(),
    lossScale: engine.lossScale?.state() ?? null,
    config: JSON.parse(JSON.stringify(config)) as JsonObject,
  };
  const saved = await saveTrainingState(
    checkpointFolder(config.output_dir),
    progress.step,
    { pieces, state: state as unknown as JsonObject },
    { keepLast: config.checkpoint.keep_last },
  );
  return saved.folder;
}

/** The config that a checkpoint was written under. */
export async function savedConfig(folder: string): Promise<JsonObject> {
  return ((await loadState(folder, { verified: true })) as unknown as SavedState).config;
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

/** Writes the trained model as a Hugging Face folder with its tokenizer: `output_dir/model`. */
export async function saveTrainedModel(parts: TrainingParts): Promise<string> {
  const { config, engine, family, modelConfig, parameters, tokenizer, dtype } = parts;
  const folder = join(config.output_dir, "model");
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
  return folder;
}
