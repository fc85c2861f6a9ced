import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../base/errors.ts";
import { acquireRunLock, compareConfig, type JsonObject, latestCheckpoint } from "../checkpoint/index.ts";
import type { Backend } from "../runtime/backend.ts";
import { loadConfig, type TrainConfig } from "./config/index.ts";
import { type RunOutcome, TrainingLoop } from "./loop.ts";
import { checkpointFolder, type RunProgress, restoreRun, savedConfig } from "./saving.ts";
import { setUpTraining, type TrainingParts } from "./setup.ts";
import { createTrainingView, type TrainingView } from "./view/index.ts";

/** What `slipstream train` is asked to do. */
export interface TrainingRequest {
  readonly configPath: string;
  /** `path.to.key=value` */
  readonly overrides: readonly string[];
  /** Continue from the last complete checkpoint in `output_dir`. */
  readonly resume: boolean;
  readonly backend: Backend;
  /** Stops the run after the step at hand, with a checkpoint. */
  readonly signal?: AbortSignal;
  /** Where progress is shown; the terminal by default. */
  readonly view?: (config: TrainConfig) => TrainingView;
}

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
];

const start: RunProgress = { step: 0, tokens: 0, elapsedSeconds: 0 };

/**
 * Trains as a config says, from the start or from the last complete checkpoint.
 * @throws ConfigError for a wrong config, another run in `output_dir`, or a resume that contradicts the
 * checkpoint; DataError, FileFormatError, RunError for what goes wrong later. What was saved stays whole.
 */
export async function runTraining(
  request: TrainingRequest,
): Promise<{ outcome: RunOutcome; config: TrainConfig }> {
  const config = loadConfig(request.configPath, request.overrides);
  const lock = await acquireRunLock(config.output_dir);
  let parts: TrainingParts | undefined;
  try {
    const view = request.view?.(config) ?? createTrainingView(config.steps_per_print);
    const folder = await checkpointToResume(config, request.resume, (line) => view.note(line));
    parts = await setUpTraining(config, request.backend, folder !== undefined, (line) => view.note(line));
    const progress = folder === undefined ? start : await restoreRun(parts, folder);
    if (folder !== undefined) view.note(`resumed from ${folder}`);
    const loop = new TrainingLoop(parts, {
      backend: request.backend,
      view,
      progress,
      resumedFrom: folder,
      interrupted: () => request.signal?.aborted === true,
    });
    return { outcome: await loop.run(), config };
  } finally {
    await parts?.dataset.close();
    parts?.engine.dispose();
    await lock.release();
  }
}

async function checkpointToResume(
  config: TrainConfig,
  resume: boolean,
  note: (line: string) => void,
): Promise<string | undefined> {
  const root = checkpointFolder(config.output_dir);
  if (!resume) {
    if (existsSync(root) && readdirSync(root).some((name) => name.startsWith("step-"))) {
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
  for (const line of notes) note(line);
  if (checkpoint === undefined) {
    throw new ConfigError("nothing_to_resume", "there is no complete checkpoint to resume from", {
      where: join(config.output_dir, "checkpoints"),
      hint: "leave out --resume to start from the beginning",
    });
  }
  const current = JSON.parse(JSON.stringify(config)) as JsonObject;
  compareConfig(await savedConfig(checkpoint.folder), current, freeKeys);
  return checkpoint.folder;
}
