import { join } from "node:path";
import { FileFormatError } from "../base/errors.ts";
import type { StatePiece } from "../base/pieces.ts";
import { formatShape, sameShape } from "../base/shape.ts";
import { readIndex, type SavedPiece, tensorName } from "./pieces_index.ts";
import { type SharedRun, sharedRuns } from "./runs.ts";
import { openSafetensors, type TensorReader } from "./safetensors_reader.ts";

/** Elements of a piece that are put together at a time. */
const windowElements = 2 ** 22;
/** Runs at least this long are read on their own; shorter ones out of what lies around them. */
const directElements = 4096;

/**
 * Fills pieces from a checkpoint, however many ranks and whatever layout wrote it: each element is read from the file
 * that holds it. Reads only what the pieces cover, a few megabytes at a time.
 * @throws FileFormatError where a tensor is missing, has another shape, or lacks elements.
 */
export async function loadPieces(folder: string, pieces: readonly StatePiece[]): Promise<void> {
  const saved = new Map<string, SavedPiece[]>();
  for (const piece of await readIndex(folder)) {
    const present = saved.get(tensorName(piece));
    if (present === undefined) saved.set(tensorName(piece), [piece]);
    else present.push(piece);
  }
  const files = new Files(folder);
  try {
    for (const piece of pieces) await loadPiece(folder, files, piece, saved.get(tensorName(piece)) ?? []);
  } finally {
    await files.close();
  }
}

async function loadPiece(
  folder: string,
  files: Files,
  piece: StatePiece,
  saved: readonly SavedPiece[],
): Promise<void> {
  const stored = saved[0];
  if (stored === undefined) {
    throw new FileFormatError("missing_state", "the checkpoint lacks a tensor of this run", {
      where: folder,
      received: `no "${tensorName(piece)}"`,
      hint: "resume with the model and optimizer that the checkpoint was written with",
    });
  }
  if (!sameShape(stored.shape, piece.shape)) {
    throw new FileFormatError(
      "wrong_shape",
      "a tensor of the checkpoint has another shape than the model's",
      {
        where: `${tensorName(piece)} of ${folder}`,
        expected: formatShape(piece.shape),
        received: formatShape(stored.shape),
        hint: "resume with the model that the checkpoint was written with",
      },
    );
  }
  for (let start = piece.start; start < piece.end; start += windowElements) {
    const end = Math.min(piece.end, start + windowElements);
    const values = new Float32Array(end - start);
    let filled = 0;
    for (const source of saved) filled += await fill(files, source, { ...piece, start, end }, values);
    if (filled < values.length) {
      throw new FileFormatError("incomplete_checkpoint", "the checkpoint lacks a part of a tensor", {
        where: `${tensorName(piece)} of ${folder}`,
        expected: `${values.length} elements`,
        received: `${filled} of them, from ${saved.length} pieces`,
        hint: "resume from an earlier checkpoint",
      });
    }
    await piece.write(start - piece.start, values);
  }
}

/** Copies what a saved piece has of a window, and says how many elements that was. */
async function fill(
  files: Files,
  source: SavedPiece,
  window: Pick<StatePiece, "shape" | "box" | "start" | "end">,
  values: Float32Array,
): Promise<number> {
  const runs = sharedRuns(source, window);
  if (runs.length === 0) return 0;
  const reader = await files.open(source.file);
  const count = runs.reduce((sum, { length }) => sum + length, 0);
  if (count / runs.length >= directElements || runs.length === 1) {
    for (const { from, to, length } of runs) {
      await read(reader, source, from, values.subarray(to, to + length));
    }
  } else await fillFromStretches(reader, source, runs, values);
  return count;
}

/** Reads stretches that hold many short runs, and picks these out. */
async function fillFromStretches(
  reader: TensorReader,
  source: SavedPiece,
  runs: readonly SharedRun[],
  values: Float32Array,
): Promise<void> {
  let next = 0;
  while (next < runs.length) {
    const first = runs[next]!.from;
    let last = next;
    while (last + 1 < runs.length && runs[last + 1]!.from + runs[last + 1]!.length - first <= windowElements)
      last++;
    const stretch = new Float32Array(runs[last]!.from + runs[last]!.length - first);
    await read(reader, source, first, stretch);
    for (const { from, to, length } of runs.slice(next, last + 1)) {
      values.set(stretch.subarray(from - first, from - first + length), to);
    }
    next = last + 1;
  }
}

async function read(
  reader: TensorReader,
  source: SavedPiece,
  from: number,
  into: Float32Array,
): Promise<void> {
  const bytes = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
  await reader.readRange(tensorName(source), from * Float32Array.BYTES_PER_ELEMENT, bytes);
}

/** The files of a checkpoint, opened when they are first needed. */
class Files {
  readonly #folder: string;
  readonly #readers = new Map<string, TensorReader>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async open(name: string): Promise<TensorReader> {
    let reader = this.#readers.get(name);
    if (reader === undefined) {
      reader = await openSafetensors(join(this.#folder, name));
      this.#readers.set(name, reader);
    }
    return reader;
  }

  async close(): Promise<void> {
    for (const reader of this.#readers.values()) await reader.close();
  }
}
