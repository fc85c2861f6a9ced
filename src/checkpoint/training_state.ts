import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { bytesPerElement } from "../base/dtype.ts";
import { FileFormatError, InternalError } from "../base/errors.ts";
import type { StatePiece } from "../base/pieces.ts";
import { elementCount } from "../base/shape.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { agree, alone, type Ranks } from "./agreement.ts";
import { removeAtomically, removeLeftovers, writeFolderAtomically } from "./atomic.ts";
import {
  hasItsFiles,
  stateName,
  tensorsName,
  verifyCheckpoint,
  writeManifest,
} from "./checkpoint_manifest.ts";
import { asReadError, asWriteError } from "./file_errors.ts";
import { createFile, type WrittenFile } from "./file_writer.ts";
import { FrozenShare } from "./frozen_share.ts";
import { type JsonObject, readJsonObject, stringifyExactly } from "./json.ts";
import { encodeIndex, indexName, type SavedPiece, tensorName } from "./pieces_index.ts";
import { createSafetensors, type TensorSource } from "./safetensors_writer.ts";
import { describePiece, shareOut } from "./shares.ts";

/** What a training run must keep to go on exactly: its tensors, and everything that is not a tensor. */
export interface TrainingState {
  /** What this rank keeps of parameters and optimizer states. */
  readonly pieces: readonly StatePiece[];
  /** Step counters, positions in the data, random states, the config: the same on every rank. */
  readonly state: JsonObject;
}

/** How to save. */
export interface SaveOptions {
  /** The ranks that save together: a group that nothing else uses meanwhile. Default: this process alone. */
  readonly group?: Ranks;
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

/** A save that goes on while the run does. */
export interface PendingSave {
  /** Resolves when the pieces may change: what is not written yet has been copied. */
  freeze(): Promise<void>;
  /** Settles when the checkpoint is complete, or has failed as `saveTrainingState` says. */
  readonly done: Promise<SavedCheckpoint>;
}

/**
 * Saves a checkpoint as `root/step-N`, a collective of all ranks: each writes a file of its part of the pieces, in
 * parallel, and rank 0 the state and the index. Written aside, brought to the disk, then renamed; only then are
 * checkpoints beyond the last `keepLast` removed. No rank sees another's tensors.
 * @throws RunError on every rank where the system refuses one of them (a full disk); every earlier checkpoint is then
 * untouched.
 */
export async function saveTrainingState(
  root: string,
  step: number,
  content: TrainingState,
  options: SaveOptions = {},
): Promise<SavedCheckpoint> {
  return await (await startSaving(root, step, content, options)).done;
}

/**
 * The same without waiting: what is saved is the pieces as they are when this resolves. They are read while the run
 * goes on; `freeze` must be awaited before they change.
 */
export async function startSaving(
  root: string,
  step: number,
  { pieces, state }: TrainingState,
  { group = alone, keepLast }: SaveOptions = {},
): Promise<PendingSave> {
  if (!Number.isSafeInteger(step) || step < 0)
    throw new InternalError(`cannot save a checkpoint of step ${step}`);
  if (keepLast !== undefined && !(keepLast >= 1)) throw new InternalError(`keepLast is ${keepLast}`);
  const stateText = Buffer.from(stringifyExactly(state));
  const described = await agree(group, () => pieces.map(describePiece));
  const shares = shareOut(described, group.rank);
  const frozen = shares.map((share) => new FrozenShare(pieces[share.piece]!, share));
  const own: RankFile = {
    name: tensorsName(group.rank, group.size),
    tensors: shares.map(({ piece, start, end }, index) => ({
      name: tensorName(pieces[piece]!),
      dtype: "f32",
      shape: [end - start],
      data: () => frozen[index]!.chunks(),
    })),
  };
  const index = described.flatMap((list, rank) =>
    shareOut(described, rank).map(
      ({ piece, start, end }): SavedPiece => ({
        ...list[piece]!,
        start,
        end,
        file: tensorsName(rank, group.size),
      }),
    ),
  );
  const files: Lead = { step, stateText, indexText: Buffer.from(stringifyExactly(encodeIndex(index))) };
  const done = writeTogether(join(root, `step-${step}`), group, own, files).then(
    async ({ folder, bytes }): Promise<SavedCheckpoint> => {
      const older = await agree(group, () =>
        group.rank === 0 ? removeOlder(root, step, keepLast) : { removed: [], notes: [] },
      );
      return { folder, bytes, ...older[0]! };
    },
  );
  return {
    freeze: async () => {
      for (const share of frozen) await share.freeze();
    },
    done,
  };
}

/** A rank's file of tensors. */
interface RankFile {
  readonly name: string;
  readonly tensors: readonly TensorSource[];
}

/** What rank 0 writes beside its tensors. */
interface Lead {
  readonly step: number;
  readonly stateText: Uint8Array;
  readonly indexText: Uint8Array;
}

async function writeTogether(
  folder: string,
  group: Ranks,
  own: RankFile,
  lead: Lead,
): Promise<{ folder: string; bytes: number }> {
  const writeOwn = async (temporary: string): Promise<WrittenFile> => {
    try {
      return await createSafetensors(join(temporary, own.name), own.tensors);
    } catch (error) {
      throw asWriteError(error, folder, tensorBytes(own.tensors));
    }
  };
  if (group.rank !== 0) {
    const [temporary] = await agree(group, () => "");
    await agree(group, () => writeOwn(temporary!));
    const [written] = await agree(group, () => ({ folder, bytes: 0 }));
    return written!;
  }
  let failedTogether = false;
  const tell = async <Value>(produce: () => Value | Promise<Value>): Promise<Value[]> => {
    try {
      return await agree(group, produce);
    } catch (error) {
      failedTogether = true;
      throw error;
    }
  };
  let bytes: number;
  try {
    bytes = await writeFolderAtomically(folder, async (temporary) => {
      await tell(() => temporary);
      const written = await tell(() => writeOwn(temporary));
      return await writeLead(temporary, folder, written, lead);
    });
  } catch (error) {
    // The others wait to hear the folder's name, or that it is complete.
    if (failedTogether) throw error;
    await agree(group, () => {
      throw error;
    });
    throw error;
  }
  return (await tell(() => ({ folder, bytes })))[0]!;
}

async function writeLead(
  temporary: string,
  folder: string,
  written: readonly WrittenFile[],
  { step, stateText, indexText }: Lead,
): Promise<number> {
  try {
    const state = await createFile(join(temporary, stateName), (writer) => writer.write(stateText));
    const index = await createFile(join(temporary, indexName), (writer) => writer.write(indexText));
    const tensors = written.map((file, rank) => [tensorsName(rank, written.length), file] as const);
    const files = { [stateName]: state, [indexName]: index, ...Object.fromEntries(tensors) };
    const manifest = await writeManifest(temporary, step, files);
    return Object.values(files).reduce((sum, { bytes }) => sum + bytes, manifest.bytes);
  } catch (error) {
    throw asWriteError(error, folder, stateText.length + indexText.length);
  }
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
 * What a checkpoint holds beside its tensors, after checking its files against the manifest's sizes and checksums.
 * Pass `verified` where `latestCheckpoint` has just done so, which saves reading everything twice.
 * @throws FileFormatError naming the file that is missing, of another size, or damaged.
 */
export async function loadState(
  folder: string,
  { verified = false }: { readonly verified?: boolean } = {},
): Promise<JsonObject> {
  if (!verified) await verifyCheckpoint(folder);
  return await readJsonObject(join(folder, stateName));
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
