import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { bytesPerElement, type DType, type TensorData } from "../base/dtype.ts";
import { FileFormatError } from "../base/errors.ts";
import type { QuantizedParameter } from "../base/quantized_format.ts";
import { elementCount } from "../base/shape.ts";
import { ParameterSpace, type ParameterTable } from "../nn/parameters.ts";
import type { Backend } from "../runtime/backend.ts";
import { readsCompressed } from "./compressed/config.ts";
import { packIntegers } from "./compressed/pack.ts";
import { isCompressed } from "./compressed/reader.ts";
import { familyOf } from "./families.ts";
import type { ConfigJson, ModelFamily } from "./family.ts";
import { openFolderWeights } from "./folder_weights.ts";
import { isGgufPath, loadGgufModel } from "./gguf/load.ts";
import { Model, type ModelParts } from "./model.ts";
import { WeightPacker } from "./pack_weights.ts";
import { planQuantization, type Quantization, refuseSecondQuantization } from "./quantization.ts";
import { transposed } from "./transpose.ts";
import { WeightMemory } from "./weight_memory.ts";

/** In which numbers a model computes. */
export type Precision = "f32" | "bf16";

/** Reads `config.json` of a model folder. @throws FileFormatError where it is missing or not an object. */
export async function readModelConfig(folder: string): Promise<{ config: ConfigJson; where: string }> {
  const where = join(folder, "config.json");
  let text: string;
  try {
    text = await readFile(where, "utf8");
  } catch (cause) {
    throw new FileFormatError("missing_file", "the model folder has no readable config.json", {
      where,
      expected: "a Hugging Face folder: config.json, model.safetensors, tokenizer.json",
      cause,
    });
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw new FileFormatError("bad_json", `config.json is not JSON: ${(cause as Error).message}`, {
      where,
      cause,
    });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new FileFormatError("bad_json", "config.json does not hold an object", { where });
  }
  return { config: parsed as ConfigJson, where };
}

/**
 * Fills memory with the weights of a model folder, converting dtypes. Quantized weights become floats.
 * @param memoryOf the memory of a parameter, of its tensor's dtype
 * @throws FileFormatError naming every tensor that is missing, extra or of another shape.
 * @param keep called when a parameter is in its memory, which may be used for the next one afterwards
 */
export async function readWeights(
  folder: string,
  family: ModelFamily,
  parameters: ParameterTable,
  memoryOf: (name: string) => TensorData,
  keep?: (name: string) => Promise<void>,
): Promise<void> {
  const { config } = await readModelConfig(folder);
  await using weights = await openFolderWeights(folder, { config, family, parameters });
  for (const parameter of parameters.values()) {
    await weights.read(parameter, memoryOf(parameter.name), parameter.tensor.dtype);
    await keep?.(parameter.name);
  }
}

type Parts = Pick<ModelParts, "config" | "family" | "parameters" | "backend" | "dtype">;
type Values = Pick<ModelParts, "weights" | "quantized">;

/** The weights of a model folder, quantized there or to be quantized now, one after another. */
async function readPacked(folder: string, parts: Parts, quantization?: Quantization): Promise<Values> {
  const { family, parameters, backend, dtype } = parts;
  await using folderWeights = await openFolderWeights(folder, parts);
  const { reader } = folderWeights;
  if (isCompressed(reader) && quantization !== undefined) {
    refuseSecondQuantization(folder, "a folder in compressed-tensors format");
  }
  const weights = new Map<string, TensorData>();
  const quantized = new Map<string, QuantizedParameter>();
  const memory = new WeightMemory(backend);
  const packer = new WeightPacker(backend, memory);
  try {
    for (const parameter of parameters.values()) {
      const { name, shape } = parameter;
      const integers = isCompressed(reader) ? await reader.integers(name) : undefined;
      const plan = quantization === undefined ? undefined : planQuantization(parameter, family, quantization);
      if (integers !== undefined) {
        const { packed, data } = await packIntegers(packer, integers);
        quantized.set(name, packed);
        weights.set(name, data);
      } else if (plan !== undefined) {
        const { transposed: isTransposed, ...packed } = plan;
        const floats = new Float32Array(elementCount(shape));
        await folderWeights.read(parameter, floats, "f32");
        const matrix = isTransposed ? transposed(floats, shape) : floats;
        quantized.set(name, packed);
        weights.set(name, await packer.quantize(packed, matrix, "f32"));
      } else {
        const floats = memory.allocate(dtype, elementCount(shape));
        await folderWeights.read(parameter, floats, dtype);
        weights.set(name, floats);
      }
    }
  } finally {
    packer.dispose();
  }
  return { weights, quantized };
}

/** Options of `loadModelWith`. */
export interface LoadOptions {
  /** "f32" by default. */
  readonly precision?: Precision;
  /** How to quantize weights that are floats in the file; by default they stay floats. */
  readonly quantization?: Quantization;
  /** Whether weights that are quantized in the file become floats; by default they stay quantized. */
  readonly dequantize?: boolean;
}

/**
 * Loads a model onto a backend: a Hugging Face folder, or a file whose name ends with `.gguf`.
 * @throws FileFormatError, ConfigError saying what is wrong with which file.
 */
export async function loadModelWith(
  backend: Backend,
  path: string,
  options: LoadOptions = {},
): Promise<Model> {
  return isGgufPath(path)
    ? await loadGgufModel(backend, path, options)
    : await loadModelFolder(backend, path, options);
}

async function loadModelFolder(backend: Backend, folder: string, options: LoadOptions): Promise<Model> {
  const dtype: DType = options.precision ?? "f32";
  const { config, where } = await readModelConfig(folder);
  const family = familyOf(config, where);
  const space = ParameterSpace.create(dtype);
  const language = family.build(config, space, where);
  const parts = { family, config, language, parameters: space.table, backend, dtype };
  const { quantization, dequantize } = options;
  if (quantization !== undefined || (dequantize !== true && readsCompressed(config, where))) {
    return new Model({ ...parts, ...(await readPacked(folder, parts, quantization)) });
  }
  const weights = new Map<string, TensorData>();
  const memory = new WeightMemory(backend);
  for (const { name, shape } of space.table.values())
    weights.set(name, memory.allocate(dtype, elementCount(shape)));
  await readWeights(folder, family, space.table, (name) => weights.get(name)!);
  return new Model({ ...parts, weights });
}

/** Bytes that a model's weights take in a dtype. */
export function weightBytes(parameters: ParameterTable, dtype: DType): number {
  let elements = 0;
  for (const { shape } of parameters.values()) elements += elementCount(shape);
  return elements * bytesPerElement(dtype);
}
