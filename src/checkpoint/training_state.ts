import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { bytesPerElement } from "../base/dtype.ts";
import { FileFormatError, InternalError } from "../base/errors.ts";
import { elementCount } from "../base/shape.ts";
import { removeAtomically, removeLeftovers, writeFolderAtomically } from "./atomic.ts";
import { asReadError, asWriteError, systemCode } from "./file_errors.ts";
import { chunkBytes, createFile, type WrittenFile } from "./file_writer.ts";
import { isJsonObject, type JsonObject, readJsonObject, stringifyExactly } from "./json.ts";
import { openSafetensors, type TensorReader } from "./safetensors_reader.ts";
import { createSafetensors, type TensorSource } from "./safetensors_writer.ts";

// A checkpoint is a folder `step-N` of state.json, tensors.safetensors and complete.json. The last, the
// manifest, is written when the others are on the disk, and the folder gets its name after that: a
// folder named step-N whose manifest agrees with its files is complete.
const stateName = "state.json";
const tensorsName = "tensors.safetensors";
const manifestName = "complete.json";
const contentNames = [stateName, tensorsName] as const;
const format = "slipstream-training-state";
const version = 1;

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
  const written: Record<(typeof contentNames)[number], WrittenFile> = {
    [stateName]: await createFile(join(folder, stateName), (writer) => writer.write(stateText)),
    [tensorsName]: await createSafetensors(join(folder, tensorsName), tensors),
  };
  const manifest = Buffer.from(stringifyExactly({ format, version, step, files: { ...written } }));
  await createFile(join(folder, manifestName), (writer) => writer.write(manifest));
  return written[stateName].bytes + written[tensorsName].bytes + manifest.length;
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
      await verify(checkpoint.folder);
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
    if (systemCode(error) === undefined) throw error;
    if (systemCode(error) !== "ENOENT") notes.push(`could not clear ${root}: ${(error as Error).message}`);
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
  if (!verified) await verify(folder);
  const state = await readJsonObject(join(folder, stateName));
  return { state, reader: await openSafetensors(join(folder, tensorsName)) };
}

/** Every checkpoint by name, newest first, complete or not. */
async function listCheckpoints(root: string): Promise<Checkpoint[]> {
  let names: string[];
  try {
    names = await readdir(root);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return [];
    throw asReadError(error, root);
  }
  return names
    .filter((name) => /^step-(0|[1-9]\d*)$/.test(name))
    .map((name) => ({ folder: join(root, name), step: Number(name.slice("step-".length)) }))
    .sort((a, b) => b.step - a.step);
}

async function verify(folder: string): Promise<void> {
  const manifest = await readManifest(folder);
  for (const name of contentNames) {
    const path = join(folder, name);
    const { bytes, crc32: expected } = manifest[name];
    const found = await fileSize(path);
    if (found !== bytes) {
      throw new FileFormatError("damaged_checkpoint", "a file of a checkpoint has the wrong size", {
        where: path,
        expected: `${bytes} bytes, as ${manifestName} says`,
        received: `${found} bytes`,
        hint: "resume from an earlier checkpoint",
      });
    }
    const received = await fileChecksum(path);
    if (received !== expected) {
      throw new FileFormatError("damaged_checkpoint", "a file of a checkpoint is damaged", {
        where: path,
        expected: `the checksum ${hexadecimal(expected)}, as ${manifestName} says`,
        received: hexadecimal(received),
        hint: "resume from an earlier checkpoint, and check the disk",
      });
    }
  }
}

async function hasItsFiles(folder: string): Promise<boolean> {
  try {
    const manifest = await readManifest(folder);
    for (const name of contentNames) {
      if ((await fileSize(join(folder, name))) !== manifest[name].bytes) return false;
    }
    return true;
  } catch (error) {
    if (error instanceof FileFormatError) return false;
    throw error;
  }
}

type Manifest = Record<(typeof contentNames)[number], WrittenFile>;

async function readManifest(folder: string): Promise<Manifest> {
  const path = join(folder, manifestName);
  const manifest = await readJsonObject(path);
  if (manifest.format !== format || manifest.version !== version) {
    throw new FileFormatError(
      "checkpoint_version",
      "a checkpoint is of a kind that this version cannot read",
      {
        where: path,
        expected: `format ${format}, version ${version}`,
        received: `format ${String(manifest.format)}, version ${String(manifest.version)}`,
        hint: "resume with the version of Slipstream that saved it",
      },
    );
  }
  return {
    [stateName]: fileOf(manifest, stateName, path),
    [tensorsName]: fileOf(manifest, tensorsName, path),
  };
}

function fileOf(manifest: JsonObject, name: string, path: string): WrittenFile {
  const file = isJsonObject(manifest.files) ? manifest.files[name] : undefined;
  if (isJsonObject(file) && typeof file.bytes === "number" && typeof file.crc32 === "number") {
    return { bytes: file.bytes, crc32: file.crc32 };
  }
  throw new FileFormatError("damaged_checkpoint", "a checkpoint's manifest does not list one of its files", {
    where: path,
    expected: `bytes and crc32 of ${name}`,
    received: JSON.stringify(file) ?? "nothing",
    hint: "resume from an earlier checkpoint",
  });
}

async function fileSize(path: string): Promise<number> {
  try {
    const handle = await open(path, "r");
    try {
      return (await handle.stat()).size;
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw asReadError(error, path);
  }
}

async function fileChecksum(path: string): Promise<number> {
  const buffer = new Uint8Array(chunkBytes);
  let checksum = 0;
  try {
    const handle = await open(path, "r");
    try {
      for (;;) {
        const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
        if (bytesRead === 0) return checksum;
        checksum = crc32(buffer.subarray(0, bytesRead), checksum);
      }
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw asReadError(error, path);
  }
}

function hexadecimal(checksum: number): string {
  return (checksum >>> 0).toString(16).padStart(8, "0");
}
