import { join } from "node:path";
import { ConfigError } from "../base/errors.ts";
import { loadPieces } from "../checkpoint/index.ts";
import { findUniversalStates, type UniversalStates } from "../checkpoint/universal/index.ts";
import type { TrainConfig } from "./config/index.ts";
import type { RunProgress } from "./saving.ts";
import { type TrainingParts, totalSteps } from "./setup.ts";

/**
 * The converted checkpoint of DeepSpeed that a run begins with (`checkpoint.load_universal: FOLDER`), if any.
 * @throws FileFormatError where there is none in the folder; ConfigError where the optimizer has no such states.
 */
export async function universalStatesOf(config: TrainConfig): Promise<UniversalStates | undefined> {
  const { load_universal: target } = config.checkpoint;
  if (typeof target !== "string") return undefined;
  const { type } = config.optimizer;
  if (type !== "AdamW" && type !== "Adam") {
    throw new ConfigError("other_optimizer", "a universal checkpoint holds the moments of Adam", {
      where: "optimizer.type",
      expected: "AdamW or Adam",
      received: type,
      hint: "to begin with the weights alone, leave out checkpoint.load_universal and keep model.path",
    });
  }
  return await findUniversalStates(join(target, "checkpoint"));
}

/** Begins a run with weights, moments and step of a converted checkpoint, and its data from the start. */
export async function beginWithUniversal(
  parts: TrainingParts,
  { folder, step, updates }: UniversalStates,
): Promise<RunProgress> {
  const { engine, config, batch, dataset } = parts;
  const total = totalSteps(config, batch, dataset);
  if (total <= step) {
    throw new ConfigError("nothing_to_train", "the run ends before the step that it would go on from", {
      where: "max_steps",
      expected: `more than the ${step} steps of ${folder}: steps go on being counted from there`,
      received: String(total),
    });
  }
  await loadPieces(folder, engine.pieces());
  engine.restored(updates);
  return { step, tokens: 0, elapsedSeconds: 0 };
}
