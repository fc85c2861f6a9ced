import { access, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import type { TensorData } from "../base/dtype.ts";
import { FileFormatError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { asReadError } from "./file_errors.ts";
import { isJsonObject, readJsonObject } from "./json.ts";
import { whereOf } from "./safetensors_header.ts";
import { openSafetensors, type TensorInfo, type TensorReader, throwMissing } from "./safetensors_reader.ts";
import { indexFileName, singleFileName } from "./safetensors_writer.ts";

/**
 * Opens the weights of a Hugging Face model folder: `model.safetensors`, or the shards that
 * `model.safetensors.index.json` names.
 * @throws FileFormatError where there are neither, a shard is missing or corrupt, or a shard lacks a tensor
 * that the index says it holds.
 */
export async function openModelWeights(folder: string): Promise<TensorReader> {
  if (await exists(join(folder, singleFileName))) return await openSafetensors(join(folder, singleFileName));
  if (await exists(join(folder, indexFileName))) return await openShards(folder);
  throw await noWeights(folder);
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    (error: unknown) => {
      if (systemErrorCode(error) === "ENOENT" || systemErrorCode(error) === "ENOTDIR") return false;
      throw asReadError(error, path);
    },
  );
}

async function noWeights(folder: string): Promise<unknown> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (error) {
    return asReadError(error, folder);
  }
  const pickled = names.find((name) => /\.(bin|pt|pth)$/.test(name));
  return new FileFormatError("missing_weights", "a model folder holds no weights in safetensors format", {
    where: folder,
    expected: `${singleFileName} or ${indexFileName}`,
    received: names.length === 0 ? "an empty folder" : names.slice(0, 10).join(", "),
    hint:
      pickled === undefined
        ? "check that this is a model's folder and that its download finished"
        : `convert ${pickled} to safetensors, or download the model's safetensors files`,
  });
}

async function openShards(folder: string): Promise<TensorReader> {
  const indexPath = join(folder, indexFileName);
  const shardByTensor = await readIndex(indexPath);
  const shards = new Map<string, TensorReader>();
  const reader = new ShardedReader(folder, shardByTensor, shards);
  try {
    for (const shard of new Set(shardByTensor.values())) shards.set(shard, await openShard(folder, shard));
    for (const [name, shard] of shardByTensor) {
      if (shards.get(shard)!.has(name)) continue;
      throw new FileFormatError("missing_tensor", "a shard lacks a tensor that the index says it holds", {
        where: whereOf(join(folder, shard), name),
        expected: `to be in ${shard}, as ${indexFileName} says`,
        received: `a shard of ${shards.get(shard)!.names().length} other tensors`,
        hint: "the folder mixes files of two versions: download or save the model again",
      });
    }
  } catch (error) {
    await reader.close();
    throw error;
  }
  return reader;
}

async function openShard(folder: string, shard: string): Promise<TensorReader> {
  if (await exists(join(folder, shard))) return await openSafetensors(join(folder, shard));
  throw new FileFormatError("missing_shard", "a shard of a model's weights is missing", {
    where: join(folder, shard),
    expected: `every shard that ${indexFileName} names`,
    received: "no such file",
    hint: "finish the download, or copy the whole folder",
  });
}

async function readIndex(path: string): Promise<Map<string, string>> {
  const { weight_map: map } = await readJsonObject(path);
  const broken = (received: string) =>
    new FileFormatError("bad_index", "an index of weights does not say which shard holds which tensor", {
      where: path,
      expected: '"weight_map": {"tensor name": "name of a file in this folder", …}',
      received,
    });
  if (!isJsonObject(map))
    throw broken(map === undefined ? "no weight_map" : JSON.stringify(map).slice(0, 100));
  const shards = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    // A shard outside the folder is no mistake that a tool makes.
    if (typeof shard !== "string" || shard === "" || basename(shard) !== shard || shard === "..") {
      throw broken(`${JSON.stringify(name)}: ${JSON.stringify(shard)}`.slice(0, 300));
    }
    shards.set(name, shard);
  }
  return shards;
}

/** The shards of one folder as one reader. The index is the authority: what else shards hold is ignored. */
class ShardedReader implements TensorReader {
  readonly path: string;
  readonly #shardByTensor: ReadonlyMap<string, string>;
  readonly #shards: ReadonlyMap<string, TensorReader>;

  constructor(
    path: string,
    shardByTensor: ReadonlyMap<string, string>,
    shards: ReadonlyMap<string, TensorReader>,
  ) {
    this.path = path;
    this.#shardByTensor = shardByTensor;
    this.#shards = shards;
  }

  get metadata(): ReadonlyMap<string, string> {
    return new Map([...this.#shards.values()].flatMap((shard) => [...shard.metadata]));
  }

  names(): string[] {
    return [...this.#shardByTensor.keys()];
  }

  has(name: string): boolean {
    return this.#shardByTensor.has(name);
  }

  info(name: string): TensorInfo {
    return this.#shardOf(name).info(name);
  }

  async read(name: string): Promise<TensorData> {
    return await this.#shardOf(name).read(name);
  }

  async readInto(name: string, destination: Uint8Array): Promise<void> {
    await this.#shardOf(name).readInto(name, destination);
  }

  async readRange(name: string, offset: number, destination: Uint8Array): Promise<void> {
    await this.#shardOf(name).readRange(name, offset, destination);
  }

  async close(): Promise<void> {
    for (const shard of this.#shards.values()) await shard.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #shardOf(name: string): TensorReader {
    const shard = this.#shardByTensor.get(name);
    return shard === undefined ? throwMissing(this, name) : this.#shards.get(shard)!;
  }
}
