import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { bytesPerElement, type DType, type TensorData } from "../base/dtype.ts";
import { FileFormatError } from "../base/errors.ts";
import type { QuantizedParameter } from "../base/quantized_format.ts";
import { elementCount } from "../base/shape.ts";
import { checkNames, convertInto, openModelWeights, type TensorReader } from "../checkpoint/index.ts";
import { type Parameter, ParameterSpace, type ParameterTable } from "../nn/parameters.ts";
import type { Backend } from "../runtime/backend.ts";
import { familyOf } from "./families.ts";
import type { ConfigJson, ModelFamily } from "./family.ts";
import { isGgufPath, loadGgufModel } from "./gguf/load.ts";
import { Model, type ModelParts } from "./model.ts";
import { WeightPacker } from "./pack_weights.ts";
import { planQuantization, type Quantization } from "./quantization.ts";
import { transposed } from "./transpose.ts";

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

/** Parameter names as a reader of this family's checkpoints knows them. */
function storedNames(
  family: ModelFamily,
  parameters: ParameterTable,
  reader: TensorReader,
): Map<string, string> {
  const names = new Map<string, string>();
  for (const name of parameters.keys()) {
    const alternative = family.alternativeName?.(name);
    names.set(
      name,
      !reader.has(name) && alternative !== undefined && reader.has(alternative) ? alternative : name,
    );
  }
  return names;
}

/**
 * Visits the weights of a model folder, one after another.
 * @param visit is given a parameter, and how to read it: into memory, as a dtype
 * @throws FileFormatError naming every tensor that is missing, extra or of another shape.
 */
async function visitWeights(
  folder: string,
  family: ModelFamily,
  parameters: ParameterTable,
  visit: (parameter: Parameter, read: (memory: TensorData, as: DType) => Promise<void>) => Promise<void>,
): Promise<void> {
  const reader = await openModelWeights(folder);
  try {
    const names = storedNames(family, parameters, reader);
    const expected = new Map([...parameters.values()].map(({ name, shape }) => [names.get(name)!, shape]));
    // A tied checkpoint may still hold its output projection.
    const ignored = [...(family.ignoredNames ?? []), /^lm_head\.weight$/, /rotary_emb\.inv_freq$/];
    const mayBeExtra = (name: string): boolean => ignored.some((pattern) => pattern.test(name));
    checkNames(expected, reader, { mayBeExtra });
    for (const parameter of parameters.values()) {
      const stored = names.get(parameter.name)!;
      await visit(parameter, async (memory, as) => {
        const { dtype } = reader.info(stored);
        const bytes = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
        if (dtype === as) await reader.readInto(stored, bytes);
        else convertInto(await reader.read(stored), dtype, memory, as);
      });
    }
  } finally {
    await reader.close();
  }
}

/**
 * Fills memory with the weights of a model folder, converting dtypes.
 * @param memoryOf the memory of a parameter, of its tensor's dtype
 * @throws FileFormatError naming every tensor that is missing, extra or of another shape.
 */
export async function readWeights(
  folder: string,
  family: ModelFamily,
  parameters: ParameterTable,
  memoryOf: (name: string) => TensorData,
): Promise<void> {
  await visitWeights(folder, family, parameters, ({ name, tensor }, read) =>
    read(memoryOf(name), tensor.dtype),
  );
}

/** The weights of a model folder, its matrices quantized one after another. */
async function readQuantized(
  folder: string,
  { family, parameters, backend, dtype }: Pick<ModelParts, "family" | "parameters" | "backend" | "dtype">,
  quantization: Quantization,
): Promise<Pick<ModelParts, "weights" | "quantized">> {
  const weights = new Map<string, TensorData>();
  const quantized = new Map<string, QuantizedParameter>();
  const packer = new WeightPacker(backend);
  try {
    await visitWeights(folder, family, parameters, async (parameter, read) => {
      const { name, shape } = parameter;
      const plan = planQuantization(parameter, family, quantization);
      if (plan === undefined) {
        const memory = backend.allocate(dtype, elementCount(shape));
        await read(memory, dtype);
        weights.set(name, memory);
        return;
      }
      const { transposed: isTransposed, ...packed } = plan;
      const floats = new Float32Array(elementCount(shape));
      await read(floats, "f32");
      const matrix = isTransposed ? transposed(floats, shape) : floats;
      weights.set(name, await packer.quantize(packed, matrix, "f32"));
      quantized.set(name, packed);
    });
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
  if (options.quantization !== undefined) {
    return new Model({ ...parts, ...(await readQuantized(folder, parts, options.quantization)) });
  }
  const weights = new Map<string, TensorData>();
  for (const { name, shape } of space.table.values())
    weights.set(name, backend.allocate(dtype, elementCount(shape)));
  await readWeights(folder, family, space.table, (name) => weights.get(name)!);
  return new Model({ ...parts, weights });
}

/** Bytes that a model's weights take in a dtype. */
export function weightBytes(parameters: ParameterTable, dtype: DType): number {
  let elements = 0;
  for (const { shape } of parameters.values()) elements += elementCount(shape);
  return elements * bytesPerElement(dtype);
}
