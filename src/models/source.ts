import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { DType } from "../base/dtype.ts";
import { FileFormatError } from "../base/errors.ts";
import type { StatePiece } from "../base/pieces.ts";
import { elementCount } from "../base/shape.ts";
import { openGguf } from "../checkpoint/gguf/index.ts";
import type { UniversalCheckpoint } from "../checkpoint/universal/index.ts";
import { type Parameter, ParameterSpace, type ParameterTable } from "../nn/parameters.ts";
import { familyOf } from "./families.ts";
import type { ConfigJson, ModelFamily } from "./family.ts";
import { type FolderWeights, matchWeights, openFolderWeights } from "./folder_weights.ts";
import { configOfGguf, readArchitecture } from "./gguf/config.ts";
import { isGgufPath } from "./gguf/load.ts";
import { matchParameters, ParameterBuffer } from "./gguf/parameters.ts";
import { readModelConfig } from "./load.ts";

/** A model on disk, in whatever form, whose weights are read one by one as float32. */
export interface ModelSource extends AsyncDisposable {
  readonly path: string;
  readonly config: ConfigJson;
  readonly family: ModelFamily;
  readonly parameters: ParameterTable;
  /** The float type of most of its weights; f32 where they are quantized. */
  readonly dtype: "f32" | "bf16" | "f16";
  /** A parameter's values, valid until the next call. Blocks and quantized integers are decoded. */
  read(parameter: Parameter): Promise<Float32Array>;
}

/**
 * Opens a Hugging Face folder or a `.gguf` file.
 * @throws FileFormatError, ConfigError saying what is wrong with which file.
 */
export async function openModelSource(path: string): Promise<ModelSource> {
  return isGgufPath(path) ? await openGgufSource(path) : await openFolderSource(path);
}

async function openFolderSource(folder: string): Promise<ModelSource> {
  const model = await readModel(folder);
  return folderSource(folder, model, await openFolderWeights(folder, model));
}

type ModelOfFolder = Pick<ModelSource, "config" | "family" | "parameters">;

/** The model that a folder's `config.json` describes. */
async function readModel(folder: string): Promise<ModelOfFolder> {
  const { config, where } = await readModelConfig(folder);
  const family = familyOf(config, where);
  const space = ParameterSpace.create("f32");
  family.build(config, space, where);
  return { config, family, parameters: space.table };
}

function folderSource(path: string, model: ModelOfFolder, weights: FolderWeights): ModelSource {
  const { parameters } = model;
  const floats = new FloatScratch(parameters);
  return {
    path,
    ...model,
    dtype: mostCommon([...parameters.values()].map((parameter) => weights.dtypeOf(parameter))),
    read: async (parameter) => {
      const values = floats.take(parameter);
      await weights.read(parameter, values, "f32");
      return values;
    },
    [Symbol.asyncDispose]: () => weights[Symbol.asyncDispose](),
  };
}

/** A model in a universal checkpoint, with its moments. */
export interface UniversalSource extends ModelSource {
  /** Parameters and moments as pieces of a training checkpoint, under the names of the model. */
  pieces(): StatePiece[];
}

/**
 * The model of a universal checkpoint.
 * @param modelFolder holds the model's `config.json`
 * @throws FileFormatError, ConfigError where it is missing, cannot be used, or describes another model.
 */
export async function openUniversalSource(
  checkpoint: UniversalCheckpoint,
  modelFolder: string,
): Promise<UniversalSource> {
  const read = await readModel(modelFolder);
  // Its weights are floats, whatever the model was made from.
  const { quantization_config: _, ...config } = read.config;
  const model = { ...read, config };
  const { family, parameters } = model;
  const shapes = new Map([...parameters.values()].map(({ name, shape }) => [name, shape]));
  for (const [name, shape] of [...shapes]) {
    const alternative = family.alternativeName?.(name);
    if (alternative !== undefined) shapes.set(alternative, shape);
  }
  const reader = checkpoint.weights((name) => shapes.get(name));
  const hint = `check that ${join(modelFolder, "config.json")} belongs to this checkpoint; its parameters must have Hugging Face's names`;
  const weights = await matchWeights(reader, model, hint);
  return {
    ...folderSource(checkpoint.folder, model, weights),
    pieces: () =>
      [...parameters.values()].flatMap((parameter) =>
        checkpoint.pieces(weights.storedName(parameter), parameter.name, parameter.shape),
      ),
  };
}

async function openGgufSource(path: string): Promise<ModelSource> {
  const file = await openGguf(path);
  try {
    const config = await configOfGguf(file);
    const family = familyOf(config, path);
    const space = ParameterSpace.create("f32");
    family.build(config, space, path);
    const parameters = space.table;
    const matched = matchParameters(file, readArchitecture(file), { config, family }, parameters);
    const storedByName = new Map(matched.map((stored) => [stored.parameter.name, stored]));
    const floats = new FloatScratch(parameters);
    const buffer = new ParameterBuffer(file);
    const dtypes = { F16: "f16", BF16: "bf16" } as const;
    return {
      path,
      config,
      family,
      parameters,
      dtype: mostCommon(
        matched.map(({ tensor: { type } }) => (type === "F16" || type === "BF16" ? dtypes[type] : "f32")),
      ),
      read: async (parameter) => {
        const values = floats.take(parameter);
        await buffer.into(storedByName.get(parameter.name)!, values, "f32");
        return values;
      },
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Memory for the largest parameter, used for all. */
class FloatScratch {
  readonly #memory: Float32Array;

  constructor(parameters: ParameterTable) {
    this.#memory = new Float32Array(
      Math.max(0, ...[...parameters.values()].map(({ shape }) => elementCount(shape))),
    );
  }

  take({ shape }: Parameter): Float32Array {
    return this.#memory.subarray(0, elementCount(shape));
  }
}

function mostCommon(dtypes: readonly DType[]): ModelSource["dtype"] {
  const count = (dtype: DType): number => dtypes.filter((other) => other === dtype).length;
  return (["f32", "bf16", "f16"] as const).toSorted((a, b) => count(b) - count(a))[0]!;
}

/** Texts of a model folder that say how to generate, which conversions take along. */
export async function readGenerationConfig(folder: string): Promise<string | undefined> {
  return await readFile(join(folder, "generation_config.json"), "utf8").catch((error: unknown) => {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new FileFormatError("unreadable_file", "a file cannot be read", {
      where: join(folder, "generation_config.json"),
      cause: error,
    });
  });
}
