import { join } from "node:path";
import { fromF16Bits, toF16Bits } from "../../base/dtype.ts";
import { ConfigError } from "../../base/errors.ts";
import {
  convertDType,
  type TensorSource,
  writeFileAtomically,
  writeSafetensors,
} from "../../checkpoint/index.ts";
import type { Parameter } from "../../nn/parameters.ts";
import { matrixOf } from "../quantization.ts";
import type { ModelSource } from "../source.ts";
import { type IntegerMatrix, packNibbles, quantizeGroups, quantizeRows } from "./codec.ts";
import { type CompressedScheme, quantizationConfig } from "./config.ts";

/**
 * Writes `config.json` and the weights of a quantized folder into a folder that is there. Embeddings and the
 * output projection stay floats, as do matrices whose rows are not whole groups.
 * @throws ConfigError for models whose weights the layout cannot hold.
 */
export async function writeCompressed(
  folder: string,
  source: ModelSource,
  scheme: CompressedScheme,
): Promise<void> {
  const { config, family, parameters, dtype } = source;
  if (family.transposedWeights !== undefined) {
    throw new ConfigError("unsupported_quantization", "quantized folders cannot hold models of this kind", {
      where: source.path,
      expected: "a model whose weights are all [outputs, inputs]",
      received: family.type,
      hint: "write a GGUF file instead, with --type q8_0 or q4_0",
    });
  }
  const isQuantized = (parameter: Parameter): boolean => {
    const isLinear =
      matrixOf(parameter, family) !== undefined && !/(embed_tokens|lm_head)/.test(parameter.name);
    return isLinear && (scheme.kind === "int8" || parameter.shape[1]! % scheme.group === 0);
  };
  const all = [...parameters.values()];
  if (scheme.kind === "int4" && !all.some(isQuantized)) {
    throw new ConfigError("bad_group", "no matrix of the model has rows of whole groups", {
      where: source.path,
      expected: `matrices with a multiple of ${scheme.group} inputs`,
      received: `${[...new Set(all.filter(({ shape }) => shape.length === 2).map(({ shape }) => shape[1]))].join(", ")} inputs`,
      hint: "choose a smaller --group",
    });
  }
  const ignore = all
    .filter((parameter) => parameter.shape.length === 2 && !isQuantized(parameter))
    .map(({ name }) => name.replace(/\.weight$/, ""))
    .filter((module) => !module.endsWith("embed_tokens"));
  const { quantization_config: _, ...rest } = config;
  const torchNames = { f32: "float32", bf16: "bfloat16", f16: "float16" } as const;
  const json = {
    ...rest,
    model_type: family.type,
    architectures: [family.architecture],
    torch_dtype: torchNames[dtype],
    quantization_config: quantizationConfig(scheme, ignore),
  };
  await writeFileAtomically(join(folder, "config.json"), `${JSON.stringify(json, null, 2)}\n`);
  await writeSafetensors(
    folder,
    all.flatMap((parameter) =>
      isQuantized(parameter) ? quantizedSources(source, parameter, scheme) : [floatSource(source, parameter)],
    ),
  );
}

function floatSource(source: ModelSource, parameter: Parameter): TensorSource {
  const { name, shape } = parameter;
  const { dtype } = source;
  return { name, shape, dtype, data: async () => convertDType(await source.read(parameter), "f32", dtype) };
}

function quantizedSources(
  source: ModelSource,
  parameter: Parameter,
  scheme: CompressedScheme,
): TensorSource[] {
  const { name } = parameter;
  const [rows, columns] = parameter.shape as readonly [number, number];
  const quantize = async (): Promise<IntegerMatrix> => {
    const matrix = await source.read(parameter);
    return scheme.kind === "int8"
      ? quantizeRows(matrix, rows, columns)
      : quantizeGroups(matrix, { rows, columns, group: scheme.group }, (value) =>
          fromF16Bits(toF16Bits(value)),
        );
  };
  const scalesOf = (scales: () => Promise<Float32Array>): TensorSource => ({
    name: `${name}_scale`,
    dtype: "f32",
    shape: [rows, scheme.kind === "int8" ? 1 : columns / scheme.group],
    data: scales,
  });
  if (scheme.kind === "int8") {
    // Files begin with the largest elements, so that bytes come long after their scales: they are made anew.
    return [
      { name, dtype: "i8", shape: [rows, columns], data: async () => (await quantize()).values },
      scalesOf(async () => (await quantize()).scales),
    ];
  }
  // Packed numbers and their scales are written one after the other.
  let scales: Float32Array | undefined;
  return [
    {
      name: `${name}_packed`,
      dtype: "i32",
      shape: [rows, columns / 8],
      data: async () => {
        const matrix = await quantize();
        scales = matrix.scales;
        return packNibbles(matrix);
      },
    },
    scalesOf(async () => scales ?? (await quantize()).scales),
    { name: `${name}_shape`, dtype: "i32", shape: [2], data: () => Int32Array.of(rows, columns) },
  ];
}
