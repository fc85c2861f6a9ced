import { basename } from "node:path";
import { ConfigError } from "../../base/errors.ts";
import {
  type GgufEntry,
  type GgufSource,
  isBlockType,
  quantizeBlocks,
  type TensorTypeName,
  tensorBytes,
  tensorTypes,
  writeGguf,
} from "../../checkpoint/gguf/index.ts";
import { convertDType } from "../../checkpoint/index.ts";
import type { Parameter } from "../../nn/parameters.ts";
import type { ModelSource } from "../source.ts";
import { transposed } from "../transpose.ts";
import { headSizeOf, metadataOfConfig, rotaryFactors } from "./config.ts";
import { architectureOf, type GgufArchitecture, ggufName, storedOrder } from "./names.ts";
import { headsOf } from "./parameters.ts";
import { pairsFromHalves } from "./permute.ts";

/** The numbers of `general.file_type`. */
const fileTypes: Readonly<Record<TensorTypeName, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q8_0: 7,
  Q4_K: 14,
  Q5_K: 16,
  Q6_K: 18,
  BF16: 32,
};

/**
 * The type of one tensor of a file whose matrices are to be of `wanted`. Norms, biases and positions stay F32. The
 * output projection of a 4-bit file keeps more bits, as it does in llama.cpp's. Rows that are not whole blocks are
 * stored in the next type that they fit.
 */
export function tensorTypeFor(
  { name, shape }: Pick<Parameter, "name" | "shape">,
  wanted: TensorTypeName,
  isOutput: boolean,
): TensorTypeName {
  if (shape.length < 2 || name.endsWith(".wpe.weight")) return "F32";
  const columns = shape.at(-1)!;
  const isFour = wanted === "Q4_0" || wanted === "Q4_K";
  const choices: readonly TensorTypeName[] = isBlockType(wanted)
    ? [isFour && isOutput ? "Q6_K" : wanted, "Q8_0", "F16"]
    : [wanted];
  return choices.find((type) => columns % tensorTypes[type].elements === 0)!;
}

/**
 * Writes a model as a GGUF file that llama.cpp reads too.
 * @param tokenizer its metadata: see `tokenizerEntries`
 * @throws ConfigError where GGUF cannot say what the config says; RunError where the system refuses.
 */
export async function saveGguf(
  path: string,
  source: ModelSource,
  options: { readonly type: TensorTypeName; readonly tokenizer: ReadonlyMap<string, GgufEntry> },
): Promise<{ readonly bytes: number }> {
  const { config, family, parameters } = source;
  const architecture = architectureOf(family.type, source.path);
  const metadata = new Map<string, GgufEntry>([
    ...metadataOfConfig(config, architecture, source.path),
    ["general.name", { type: "string", value: basename(source.path).replace(/\.gguf$/i, "") }],
    ["general.file_type", { type: "uint32", value: fileTypes[options.type] }],
    ["general.quantization_version", { type: "uint32", value: 2 }],
    ...options.tokenizer,
  ]);
  const isTied = !parameters.has("lm_head.weight");
  const tensors = [...parameters.values()].map((parameter) => {
    const isOutput = parameter.name === "lm_head.weight" || (isTied && isEmbedding(parameter.name));
    return tensorOf(source, architecture, parameter, options.type, isOutput);
  });
  return await writeGguf(path, metadata, [...factorTensors(source, architecture), ...tensors]);
}

function isEmbedding(name: string): boolean {
  return /(embed_tokens|\.wte)\.weight$/.test(name);
}

function factorTensors({ config, path }: ModelSource, architecture: GgufArchitecture): GgufSource[] {
  if (architecture === "gpt2") return [];
  const factors = rotaryFactors(config, headSizeOf(config, path), path);
  if (factors === undefined) return [];
  const data = Float32Array.from(factors);
  return [
    {
      name: "rope_freqs.weight",
      type: "F32",
      shape: [data.length],
      data: () => new Uint8Array(data.buffer),
    },
  ];
}

function tensorOf(
  source: ModelSource,
  architecture: GgufArchitecture,
  parameter: Parameter,
  wanted: TensorTypeName,
  isOutput: boolean,
): GgufSource {
  const { config, family } = source;
  const name = ggufName(architecture, parameter.name);
  if (name === undefined) {
    throw new ConfigError("unsupported_parameter", "GGUF files have no name for a weight of this model", {
      where: `${parameter.name} of ${source.path}`,
    });
  }
  const order = storedOrder(architecture, family, parameter.name, headsOf(config, source.path));
  const shape = order.kind === "transposed" ? parameter.shape.toReversed() : parameter.shape;
  const type = tensorTypeFor({ name: parameter.name, shape }, wanted, isOutput);
  return {
    name,
    type,
    shape,
    data: async () => {
      const read = await source.read(parameter);
      const values = order.kind === "transposed" ? transposed(read, parameter.shape) : read;
      const bytes = encodeTensor(type, values);
      if (order.kind !== "interleaved") return bytes;
      const moved = new Uint8Array(bytes.length);
      pairsFromHalves(bytes, moved, shape[0]!, order.heads);
      return moved;
    },
  };
}

/** Float32 elements as the bytes of a type. */
export function encodeTensor(type: TensorTypeName, values: Float32Array): Uint8Array {
  switch (type) {
    case "F32":
    case "F16":
    case "BF16": {
      const floats = convertDType(values, "f32", type.toLowerCase() as "f32" | "f16" | "bf16");
      return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
    }
    default: {
      const bytes = new Uint8Array(tensorBytes(type, values.length));
      quantizeBlocks(type, values, bytes);
      return bytes;
    }
  }
}
