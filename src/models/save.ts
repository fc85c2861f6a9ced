import { cp } from "node:fs/promises";
import { join } from "node:path";
import type { TensorData } from "../base/dtype.ts";
import {
  convertDType,
  type TensorSource,
  writeFileAtomically,
  writeFolderAtomically,
  writeSafetensors,
} from "../checkpoint/index.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import type { ConfigJson, ModelFamily } from "./family.ts";

/** What goes into a model folder. */
export interface SavedModel {
  readonly family: ModelFamily;
  readonly config: ConfigJson;
  readonly parameters: ParameterTable;
  /** The values of a parameter, in its tensor's dtype. */
  readonly valuesOf: (name: string) => TensorData;
  /** The dtype in the file. */
  readonly dtype: "f32" | "bf16" | "f16";
}

const torchNames = { f32: "float32", bf16: "bfloat16", f16: "float16" } as const;

/**
 * Writes a Hugging Face folder: `config.json`, `model.safetensors` (sharded above 5 GB), and what `more` adds,
 * such as a tokenizer. The folder appears whole or not at all.
 */
export async function saveModelFolder(
  folder: string,
  model: SavedModel,
  more: (temporaryFolder: string) => Promise<void> = async () => {},
): Promise<void> {
  const { family, config, parameters, valuesOf, dtype } = model;
  await writeFolderAtomically(folder, async (temporary) => {
    const json = {
      ...config,
      model_type: family.type,
      architectures: [family.architecture],
      torch_dtype: torchNames[dtype],
    };
    await writeFileAtomically(join(temporary, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
    const sources = [...parameters.values()].map(
      ({ name, shape, tensor }): TensorSource => ({
        name,
        dtype,
        shape,
        data: () => convertDType(valuesOf(name), tensor.dtype, dtype),
      }),
    );
    await writeSafetensors(temporary, sources);
    await more(temporary);
  });
}

/** Copies the tokenizer's files of one model folder into another. */
export async function copyTokenizer(from: string, to: string): Promise<void> {
  for (const name of ["tokenizer.json", "tokenizer_config.json"])
    await cp(join(from, name), join(to, name), { force: true });
}
