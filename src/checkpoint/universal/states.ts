import { FileFormatError } from "../../base/errors.ts";
import type { StatePiece } from "../../base/pieces.ts";
import type { JsonObject } from "../json.ts";
import { latestCheckpoint, loadState, saveTrainingState } from "../training_state.ts";

const source = "deepspeed_universal";

/** How far the run was that a universal checkpoint is of. */
export interface UniversalProgress {
  readonly step: number;
  /** Updates of the optimizer, which skipped steps do not count among. */
  readonly updates: number;
}

/** Weights and moments of a universal checkpoint, as a checkpoint of Slipstream. */
export interface UniversalStates extends UniversalProgress {
  readonly folder: string;
}

/**
 * Saves weights and moments of a universal checkpoint as `root/step-N`, a few megabytes at a time. Any layout of ranks
 * loads them with `loadPieces`.
 * @throws as `saveTrainingState`
 */
export async function saveUniversalStates(
  root: string,
  pieces: readonly StatePiece[],
  { step, updates }: UniversalProgress,
): Promise<void> {
  await saveTrainingState(root, step, { pieces, state: { source, step, updates } });
}

/**
 * The newest of the checkpoints that `saveUniversalStates` wrote into `root`, verified.
 * @throws FileFormatError where there is none, or it is a run's own.
 */
export async function findUniversalStates(root: string): Promise<UniversalStates> {
  const { checkpoint, notes } = await latestCheckpoint(root);
  const refuse = (received: string): never => {
    throw new FileFormatError("no_universal_states", "there is no converted checkpoint to continue from", {
      where: root,
      expected: "step-N of a folder that `slipstream convert` wrote from a universal checkpoint of DeepSpeed",
      received,
      hint: "slipstream convert UNIVERSAL_FOLDER TARGET, then name TARGET",
    });
  };
  if (checkpoint === undefined) return refuse(notes[0] ?? "no checkpoint");
  const state = await loadState(checkpoint.folder, { verified: true });
  if (!isUniversal(state)) return refuse(`${checkpoint.folder}, which a run of Slipstream wrote`);
  return { folder: checkpoint.folder, step: Number(state.step), updates: Number(state.updates) };
}

/** Whether a checkpoint's state is of a universal checkpoint, not of a run. */
export function isUniversal(state: JsonObject): boolean {
  return state.source === source;
}
