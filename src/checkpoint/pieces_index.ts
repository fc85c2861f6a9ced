import { join } from "node:path";
import { FileFormatError } from "../base/errors.ts";
import { isJsonObject, type JsonObject, type JsonValue, readJsonObject } from "./json.ts";
import type { PieceDescription } from "./shares.ts";

/** The file that says which file of a checkpoint holds which elements of which tensor. */
export const indexName = "pieces.json";

/** A piece as it lies in a file: the tensor `kind/name` there. */
export interface SavedPiece extends PieceDescription {
  /** The file's name in the checkpoint's folder. */
  readonly file: string;
}

/** The name of a piece's tensor within its file. */
export function tensorName({ kind, name }: Pick<PieceDescription, "kind" | "name">): string {
  return `${kind}/${name}`;
}

/** The index as JSON: by tensor its shape, and its pieces as [file, box starts, box sizes, start, end]. */
export function encodeIndex(pieces: readonly SavedPiece[]): JsonObject {
  const files = [...new Set(pieces.map(({ file }) => file))].sort();
  const tensors: Record<string, { shape: readonly number[]; pieces: JsonValue[] }> = {};
  for (const piece of pieces) {
    const { file, shape, box, start, end } = piece;
    tensors[tensorName(piece)] ??= { shape, pieces: [] };
    tensors[tensorName(piece)]!.pieces.push([files.indexOf(file), box.starts, box.sizes, start, end]);
  }
  return { files, tensors };
}

/** Reads the index of a checkpoint. @throws FileFormatError where it is missing or malformed. */
export async function readIndex(folder: string): Promise<SavedPiece[]> {
  const path = join(folder, indexName);
  const index = await readJsonObject(path);
  const files = index.files;
  if (!Array.isArray(files) || !isJsonObject(index.tensors)) throw malformed(path, "files and tensors");
  return Object.entries(index.tensors).flatMap(([tensor, entry]) => {
    const slash = tensor.indexOf("/");
    if (!isJsonObject(entry) || !isNumbers(entry.shape) || !Array.isArray(entry.pieces) || slash < 0)
      throw malformed(path, tensor);
    const { shape } = entry;
    return entry.pieces.map((piece: JsonValue): SavedPiece => {
      const [file, starts, sizes, start, end] = Array.isArray(piece) ? (piece as readonly JsonValue[]) : [];
      const fits = isNumbers(starts) && isNumbers(sizes) && isNumbers([start, end]);
      const name = typeof file === "number" ? files[file] : undefined;
      if (!fits || typeof name !== "string") throw malformed(path, tensor);
      return {
        kind: tensor.slice(0, slash),
        name: tensor.slice(slash + 1),
        shape,
        box: { starts, sizes },
        start: start as number,
        end: end as number,
        file: name,
      };
    });
  });
}

function isNumbers(value: unknown): value is readonly number[] {
  return Array.isArray(value) && value.every((element) => typeof element === "number");
}

function malformed(path: string, entry: string): FileFormatError {
  return new FileFormatError("damaged_checkpoint", "a checkpoint's index of pieces is malformed", {
    where: path,
    received: `an entry "${entry}" that cannot be read`,
    hint: "resume from an earlier checkpoint",
  });
}
