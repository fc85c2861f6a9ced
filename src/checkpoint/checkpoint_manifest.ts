import { open } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { FileFormatError } from "../base/errors.ts";
import { asReadError } from "./file_errors.ts";
import { chunkBytes, createFile, type WrittenFile } from "./file_writer.ts";
import { isJsonObject, type JsonObject, readJsonObject, stringifyExactly } from "./json.ts";
import { indexName } from "./pieces_index.ts";

// A checkpoint is a folder `step-N` of state.json, files of tensors (one a rank), pieces.json, which says what lies
// where in them, and complete.json. The last, the manifest, is written when the others are on the disk, and the
// folder gets its name after that: a folder named step-N whose manifest agrees with its files is complete.

/** The file of everything that is not a tensor. */
export const stateName = "state.json";
const manifestName = "complete.json";
const format = "slipstream-training-state";
const version = 2;

/** What each file of a checkpoint must hold, by name. */
export type Manifest = Readonly<Record<string, WrittenFile>>;

/** The file of one rank's tensors. */
export function tensorsName(rank: number, ranks: number): string {
  if (ranks === 1) return "tensors.safetensors";
  const digits = (value: number): string => String(value).padStart(5, "0");
  return `tensors-${digits(rank + 1)}-of-${digits(ranks)}.safetensors`;
}

/** Writes the manifest of a checkpoint whose files are on the disk. */
export async function writeManifest(folder: string, step: number, files: Manifest): Promise<WrittenFile> {
  const text = Buffer.from(stringifyExactly({ format, version, step, files }));
  return await createFile(join(folder, manifestName), (writer) => writer.write(text));
}

/**
 * Checks a checkpoint's files against its manifest, sizes and checksums: reads everything.
 * @throws FileFormatError naming the file that is missing, of another size, or damaged.
 */
export async function verifyCheckpoint(folder: string): Promise<void> {
  const manifest = await readManifest(folder);
  for (const [name, { bytes, crc32: expected }] of Object.entries(manifest)) {
    const path = join(folder, name);
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

/** Whether a checkpoint's files are there in full size, without reading them. */
export async function hasItsFiles(folder: string): Promise<boolean> {
  try {
    const manifest = await readManifest(folder);
    for (const [name, { bytes }] of Object.entries(manifest)) {
      if ((await fileSize(join(folder, name))) !== bytes) return false;
    }
    return true;
  } catch (error) {
    if (error instanceof FileFormatError) return false;
    throw error;
  }
}

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
  const names = isJsonObject(manifest.files) ? Object.keys(manifest.files) : [];
  return Object.fromEntries(
    [...new Set([stateName, indexName, ...names])].map((name) => [name, fileOf(manifest, name, path)]),
  );
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
