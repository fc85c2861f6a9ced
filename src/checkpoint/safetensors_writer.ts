import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { bytesPerElement, type DType, type TensorData, viewOf } from "../base/dtype.ts";
import { InternalError, RunError, ShapeError } from "../base/errors.ts";
import { elementCount, formatShape } from "../base/shape.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { discard, nameBeside, removeLeftovers, syncFolder } from "./atomic.ts";
import { asWriteError } from "./file_errors.ts";
import { bytesOf, createFile, type FileWriter, type WrittenFile } from "./file_writer.ts";
import { lengthBytes, storedByDType, whereOf } from "./safetensors_header.ts";

/** One tensor to write. `data` is called when its turn comes, so that only one need be in memory. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /**
   * The elements, row-major; bf16 and f16 as their raw bits; whole, or in chunks one after another. They are written
   * from where they stand.
   */
  readonly data: () => TensorData | Promise<TensorData> | AsyncIterable<TensorData>;
}

/** How a model's weights are written. */
export interface WriteOptions {
  /** A shard takes tensors up to this many bytes; one larger tensor has a shard of its own. Default 5e9. */
  readonly maxShardBytes?: number;
  /** Default `{format: "pt"}`, which other loaders ask for. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The names of the files that were written, and the bytes of all tensors. */
export interface WrittenWeights {
  readonly files: readonly string[];
  readonly tensorBytes: number;
}

/** The file of weights that are not sharded. */
export const singleFileName = "model.safetensors";
/** The file that says which shard holds which tensor. */
export const indexFileName = "model.safetensors.index.json";

const shardPattern = /^model-\d{5}-of-\d{5}\.safetensors$/;
const defaultMetadata = { format: "pt" };

/**
 * Writes `model.safetensors` into `folder`, or `model-00001-of-0000N.safetensors` and
 * `model.safetensors.index.json` where the tensors exceed `maxShardBytes`; weights that stood there
 * before are replaced only once everything is on the disk. A crash in the moment of the renames may
 * leave shards of both: write inside `writeFolderAtomically` where that matters.
 * @throws RunError where the system refuses (a full disk): nothing unfinished stays, and the earlier
 * weights are intact. ShapeError where data does not fit its shape, and whatever a `data` throws.
 */
export async function writeSafetensors(
  folder: string,
  tensors: Iterable<TensorSource>,
  options: WriteOptions = {},
): Promise<WrittenWeights> {
  const list = [...tensors];
  requireUniqueNames(list, folder);
  const shards = planShards(list, options.maxShardBytes ?? 5e9);
  const tensorBytes = list.reduce((sum, tensor) => sum + byteCount(tensor), 0);
  const files = shards.map((_, index) => shardName(index, shards.length));
  const target = resolve(folder);
  const aside = new Map<string, string>();
  const writeAside = async (name: string, write: (path: string) => Promise<unknown>) => {
    const temporary = nameBeside(join(target, name));
    aside.set(name, temporary);
    await write(temporary);
  };
  try {
    await mkdir(target, { recursive: true });
    await removeLeftovers(target);
    for (const [index, shard] of shards.entries()) {
      await writeAside(files[index]!, (path) => createSafetensors(path, shard, options.metadata));
    }
    if (shards.length > 1) {
      const index = Buffer.from(indexText(shards, files, tensorBytes));
      await writeAside(indexFileName, (path) => createFile(path, (writer) => writer.write(index)));
    }
  } catch (error) {
    for (const temporary of aside.values()) await discard(temporary);
    throw asWriteError(error, folder, tensorBytes);
  }
  await replaceWeights(target, aside);
  return { files: [...aside.keys()], tensorBytes };
}

/**
 * Creates one safetensors file, which must not exist, and brings it to the disk. Tensors of larger
 * elements come first, so that every tensor is aligned to its elements; otherwise the order is kept.
 * A failure leaves the unfinished file for the caller to remove.
 */
export async function createSafetensors(
  path: string,
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>> = defaultMetadata,
): Promise<WrittenFile> {
  requireUniqueNames(tensors, path);
  const ordered = tensors.toSorted((a, b) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype));
  return await createFile(path, async (writer) => {
    await writer.write(encodeHeader(ordered, metadata));
    for (const tensor of ordered) {
      const data = tensor.data();
      if (Symbol.asyncIterator in data) await writeChunks(writer, tensor, data, path);
      else {
        const whole = await data;
        requireFit(tensor, whole, path);
        await writer.write(bytesOf(whole));
      }
    }
  });
}

async function writeChunks(
  writer: FileWriter,
  tensor: TensorSource,
  chunks: AsyncIterable<TensorData>,
  path: string,
): Promise<void> {
  const start = writer.bytes;
  for await (const chunk of chunks) await writer.write(bytesOf(chunk));
  if (writer.bytes - start !== byteCount(tensor))
    throw new InternalError(`${whereOf(path, tensor.name)} was given ${writer.bytes - start} bytes`);
}

function encodeHeader(
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  let end = 0;
  const entries = tensors.map((tensor) => {
    const begin = end;
    end += byteCount(tensor);
    return [
      tensor.name,
      { dtype: storedByDType[tensor.dtype], shape: tensor.shape, data_offsets: [begin, end] },
    ] as const;
  });
  const json = Buffer.from(JSON.stringify(Object.fromEntries([["__metadata__", metadata], ...entries])));
  // Spaces after the JSON, so that the tensors begin at a multiple of 8.
  const jsonBytes = Math.ceil(json.length / 8) * 8;
  const header = Buffer.alloc(lengthBytes + jsonBytes, " ");
  header.writeBigUInt64LE(BigInt(jsonBytes));
  json.copy(header, lengthBytes);
  return header;
}

function byteCount(tensor: TensorSource): number {
  return elementCount(tensor.shape) * bytesPerElement(tensor.dtype);
}

function requireFit(tensor: TensorSource, data: TensorData, path: string): void {
  const expectedKind = viewOf(tensor.dtype, new ArrayBuffer(0))[Symbol.toStringTag];
  const elements = elementCount(tensor.shape);
  if (data.length === elements && data[Symbol.toStringTag] === expectedKind) return;
  throw new ShapeError("tensor_data", "a tensor's data does not fit its shape and dtype", {
    where: whereOf(path, tensor.name),
    expected: `${expectedKind} of ${elements} elements for ${tensor.dtype} ${formatShape(tensor.shape)}`,
    received: `${data[Symbol.toStringTag]} of ${data.length}`,
  });
}

function requireUniqueNames(tensors: readonly TensorSource[], path: string): void {
  const names = new Set(["__metadata__"]);
  for (const { name } of tensors) {
    if (names.has(name)) throw new InternalError(`${whereOf(path, name)} has a name that is taken`);
    names.add(name);
  }
}

function planShards(tensors: readonly TensorSource[], maxShardBytes: number): TensorSource[][] {
  if (!(maxShardBytes > 0)) throw new InternalError(`maxShardBytes is ${maxShardBytes}`);
  const shards: TensorSource[][] = [[]];
  let filled = 0;
  for (const tensor of tensors) {
    const bytes = byteCount(tensor);
    if (filled > 0 && filled + bytes > maxShardBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += bytes;
  }
  return shards;
}

function shardName(index: number, count: number): string {
  if (count === 1) return singleFileName;
  const digits = (value: number) => String(value).padStart(5, "0");
  return `model-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}

function indexText(shards: readonly TensorSource[][], files: readonly string[], tensorBytes: number): string {
  const map = shards.flatMap((shard, index) => shard.map(({ name }) => [name, files[index]!] as const));
  const index = { metadata: { total_size: tensorBytes }, weight_map: Object.fromEntries(map) };
  return `${JSON.stringify(index, null, 2)}\n`;
}

/** Renames the new files into place (the index, which names the shards, last), then drops old ones. */
async function replaceWeights(folder: string, aside: ReadonlyMap<string, string>): Promise<void> {
  const pending = new Map(aside);
  try {
    for (const [name, temporary] of aside) {
      await rename(temporary, join(folder, name));
      pending.delete(name);
    }
    for (const name of await readdir(folder)) {
      const isWeights = name === singleFileName || name === indexFileName || shardPattern.test(name);
      if (isWeights && !aside.has(name)) await rm(join(folder, name));
    }
    await syncFolder(folder);
  } catch (error) {
    for (const temporary of pending.values()) await discard(temporary);
    if (pending.size === aside.size || systemErrorCode(error) === undefined)
      throw asWriteError(error, folder);
    throw new RunError("write_failed", "the weights of a model were replaced only in part", {
      where: folder,
      received: (error as Error).message,
      hint: "save the model again into an empty folder",
      cause: error,
    });
  }
}
