/** Safetensors, model folders, files that are written all at once, and resumable training state. */

export { agree, type Ranks } from "./agreement.ts";
export { removeLeftovers, writeFileAtomically, writeFolderAtomically } from "./atomic.ts";
export { type CheckOptions, checkNames } from "./check_names.ts";
export { type ConfigDifference, compareConfig, configDifferences, showSetting } from "./compare_config.ts";
export { convertDType, convertInto } from "./convert.ts";
export { asReadError } from "./file_errors.ts";
export { isJsonObject, type JsonObject, type JsonValue, readJsonObject } from "./json.ts";
export { loadPieces } from "./load_pieces.ts";
export { openModelWeights } from "./model_folder.ts";
export { acquireRunLock, type RunLock } from "./run_lock.ts";
export { openSafetensors, type TensorInfo, type TensorReader } from "./safetensors_reader.ts";
export {
  type TensorSource,
  type WriteOptions,
  type WrittenWeights,
  writeSafetensors,
} from "./safetensors_writer.ts";
export {
  type Checkpoint,
  type LatestCheckpoint,
  latestCheckpoint,
  loadState,
  type PendingSave,
  type SavedCheckpoint,
  type SaveOptions,
  saveTrainingState,
  startSaving,
  type TrainingState,
} from "./training_state.ts";
