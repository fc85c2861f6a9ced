import { join } from "node:path";
import { bytesPerElement, type DType, type TensorData, viewOf } from "../base/dtype.ts";
import { elementCount } from "../base/shape.ts";
import {
  convertInto,
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
  /** The values of a parameter, in its tensor's dtype. They are written before others are asked for. */
  readonly valuesOf: (name: string) => TensorData | Promise<TensorData>;
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
    const { quantization_config: _, ...floats } = config;
    const json = {
      ...floats,
      model_type: family.type,
      architectures: [family.architecture],
      torch_dtype: torchNames[dtype],
    };
    await writeFileAtomically(join(temporary, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
    const converted = converter(parameters, dtype);
    const sources = [...parameters.values()].map(
      ({ name, shape, tensor }): TensorSource => ({
        name,
        dtype,
        shape,
        data: async () => converted(await valuesOf(name), tensor.dtype),
      }),
    );
    await writeSafetensors(temporary, sources);
    await more(temporary);
  });
}

/** Converts one tensor after another in the same memory: each is written before the next is asked for. */
function converter(
  parameters: ParameterTable,
  to: SavedModel["dtype"],
): (values: TensorData, from: DType) => TensorData {
  const largest = Math.max(0, ...[...parameters.values()].map(({ shape }) => elementCount(shape)));
  let scratch: TensorData | undefined;
  return (values, from) => {
    if (from === to) return values;
    scratch ??= viewOf(to, new ArrayBuffer(largest * bytesPerElement(to)));
    const target = scratch.subarray(0, values.length);
    convertInto(values, from, target, to);
    return target;
  };
}
