import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { bytesPerElement } from "../base/dtype.ts";
import { FileFormatError, InternalError } from "../base/errors.ts";
import { elementCount } from "../base/shape.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { removeAtomically, removeLeftovers, writeFolderAtomically } from "./atomic.ts";
import {
  hasItsFiles,
  stateName,
  tensorsName,
  verifyCheckpoint,
  writeManifest,
} from "./checkpoint_manifest.ts";
import { asReadError, asWriteError } from "./file_errors.ts";
import { createFile } from "./file_writer.ts";
import { type JsonObject, readJsonObject, stringifyExactly } from "./json.ts";
import { openSafetensors, type TensorReader } from "./safetensors_reader.ts";
import { createSafetensors, type TensorSource } from "./safetensors_writer.ts";

/** What a training run must keep to go on exactly: its tensors, and everything that is not a tensor. */
export interface TrainingState {
  readonly tensors: Iterable<TensorSource>;
  /** Step counters, positions in the data, random states, the config. */
  readonly state: JsonObject;
}

/** How many checkpoints stay. */
export interface SaveOptions {
  /** The newest K stay, of those up to the one just saved; all stay where it is absent. */
  readonly keepLast?: number;
}

/** What a save did. */
export interface SavedCheckpoint {
  readonly folder: string;
  readonly bytes: number;
  /** Older checkpoints that were removed. */
  readonly removed: readonly string[];
  /** What went wrong after the checkpoint was safe: an older one that could not be removed. */
  readonly notes: readonly string[];
}

/** A checkpoint's place. */
export interface Checkpoint {
  readonly folder: string;
  readonly step: number;
}

/** The newest complete checkpoint, and why newer ones were skipped. */
export interface LatestCheckpoint {
  readonly checkpoint: Checkpoint | undefined;
  readonly notes: readonly string[];
}

/** A checkpoint opened for reading; close the reader when the tensors are read. */
export interface LoadedTrainingState {
  readonly state: JsonObject;
  readonly reader: TensorReader;
}

/**
 * Saves a checkpoint as `root/step-N`: written aside, brought to the disk, then renamed; only then are
 * checkpoints beyond the last `keepLast` removed. Tensors are written from where they stand and must not
 * change until this resolves.
 * @throws RunError where the system refuses (a full disk); every earlier checkpoint is then untouched.
 */
export async function saveTrainingState(
  root: string,
  step: number,
  { tensors, state }: TrainingState,
  { keepLast }: SaveOptions = {},
): Promise<SavedCheckpoint> {
  if (!Number.isSafeInteger(step) || step < 0)
    throw new InternalError(`cannot save a checkpoint of step ${step}`);
  if (keepLast !== undefined && !(keepLast >= 1)) throw new InternalError(`keepLast is ${keepLast}`);
  const list = [...tensors];
  const stateText = Buffer.from(stringifyExactly(state));
  const folder = join(root, `step-${step}`);
  const bytes = await writeFolderAtomically(folder, async (temporary) => {
    try {
      return await writeContent(temporary, step, list, stateText);
    } catch (error) {
      throw asWriteError(error, folder, stateText.length + tensorBytes(list));
    }
  });
  return { folder, bytes, ...(await removeOlder(root, step, keepLast)) };
}

async function writeContent(
  folder: string,
  step: number,
  tensors: readonly TensorSource[],
  stateText: Uint8Array,
): Promise<number> {
  const state = await createFile(join(folder, stateName), (writer) => writer.write(stateText));
  const content = await createSafetensors(join(folder, tensorsName), tensors);
  const manifest = await writeManifest(folder, step, { [stateName]: state, [tensorsName]: content });
  return state.bytes + content.bytes + manifest.bytes;
}

function tensorBytes(tensors: readonly TensorSource[]): number {
  return tensors.reduce((sum, { shape, dtype }) => sum + elementCount(shape) * bytesPerElement(dtype), 0);
}

async function removeOlder(
  root: string,
  step: number,
  keepLast: number | undefined,
): Promise<Pick<SavedCheckpoint, "removed" | "notes">> {
  const removed: string[] = [];
  const notes: string[] = [];
  if (keepLast === undefined) return { removed, notes };
  let kept = 0;
  for (const checkpoint of await listCheckpoints(root)) {
    if (checkpoint.step > step) continue;
    // A damaged one takes no place among the kept; it goes when K whole ones are newer.
    if (kept < keepLast) {
      if (await hasItsFiles(checkpoint.folder)) kept++;
      continue;
    }
    try {
      await removeAtomically(checkpoint.folder);
      removed.push(checkpoint.folder);
    } catch (error) {
      notes.push(`could not remove the old checkpoint ${checkpoint.folder}: ${(error as Error).message}`);
    }
  }
  return { removed, notes };
}

/**
 * The newest complete checkpoint under `root`, whose content agrees with its checksums; newer ones that
 * are damaged are skipped, each with a note. A root that does not exist holds none.
 */
export async function latestCheckpoint(root: string): Promise<LatestCheckpoint> {
  const notes: string[] = [];
  await recover(root, notes);
  for (const checkpoint of await listCheckpoints(root)) {
    try {
      await verifyCheckpoint(checkpoint.folder);
      return { checkpoint, notes };
    } catch (error) {
      if (!(error instanceof FileFormatError)) throw error;
      notes.push(`skipped the checkpoint ${checkpoint.folder}, which is not complete:\n${error.message}`);
    }
  }
  return { checkpoint: undefined, notes };
}

/** Puts back a checkpoint that was being replaced when its process was killed. */
async function recover(root: string, notes: string[]): Promise<void> {
  try {
    await removeLeftovers(root);
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    if (systemErrorCode(error) !== "ENOENT")
      notes.push(`could not clear ${root}: ${(error as Error).message}`);
  }
}

/**
 * Opens a checkpoint after checking its files against the manifest's sizes and checksums. Pass
 * `verified` where `latestCheckpoint` has just done so, which saves reading everything twice.
 * @throws FileFormatError naming the file that is missing, of another size, or damaged.
 */
export async function loadTrainingState(
  folder: string,
  { verified = false }: { readonly verified?: boolean } = {},
): Promise<LoadedTrainingState> {
  if (!verified) await verifyCheckpoint(folder);
  const state = await readJsonObject(join(folder, stateName));
  return { state, reader: await openSafetensors(join(folder, tensorsName)) };
}

/** Every checkpoint by name, newest first, complete or not. */
async function listCheckpoints(root: string): Promise<Checkpoint[]> {
  let names: string[];
  try {
    names = await readdir(root);
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return [];
    throw asReadError(error, root);
  }
  return names
    .filter((name) => /^step-(0|[1-9]\d*)$/.test(name))
    .map((name) => ({ folder: join(root, name), step: Number(name.slice("step-".length)) }))
    .sort((a, b) => b.step - a.step);
}
