import { ConfigError } from "../base/errors.ts";
import type { QuantizedFormat, QuantizedParameter } from "../base/quantized_format.ts";
import type { Parameter } from "../nn/parameters.ts";
import type { ModelFamily } from "./family.ts";

/** How weights are quantized when a model is loaded. Activations become int8 in the same groups. */
export type Quantization =
  /** One scale an output channel; activations have one a token. */
  | { readonly kind: "int8" }
  /** Groups of consecutive inputs with a scale and an offset of their own (W4A8, as in OdysseyLLM). */
  | { readonly kind: "int4"; readonly group: 32 | 128 };

/** A packed matrix, and whether the parameter is stored [inputs, outputs], its transpose. */
export interface PlannedMatrix extends QuantizedParameter {
  readonly transposed: boolean;
}

/** The matrix of a parameter as products use it; undefined of parameters that always stay floats. */
export function matrixOf(
  { name, shape }: Parameter,
  family: ModelFamily,
): { readonly rows: number; readonly columns: number; readonly transposed: boolean } | undefined {
  if (shape.length !== 2 || family.staysFloat?.test(name) === true) return undefined;
  const transposed = family.transposedWeights?.test(name) === true;
  const [first, second] = shape as readonly [number, number];
  return transposed
    ? { rows: second, columns: first, transposed }
    : { rows: first, columns: second, transposed };
}

/**
 * How a parameter is quantized; undefined where it stays as it is. Embeddings and output projections are int8
 * under int4 too: they are where four bits cost most.
 */
export function planQuantization(
  parameter: Parameter,
  family: ModelFamily,
  quantization: Quantization,
): PlannedMatrix | undefined {
  const matrix = matrixOf(parameter, family);
  if (matrix === undefined) return undefined;
  const isVocabulary = /(embed_tokens|lm_head|wte)\.weight$/.test(parameter.name);
  const format: QuantizedFormat =
    quantization.kind === "int8" || isVocabulary
      ? { bits: 8, group: 0, minimum: false }
      : { bits: 4, group: quantization.group, minimum: true };
  return { format, ...matrix };
}

/** @throws ConfigError where weights that have been quantized already are to be quantized once more. */
export function refuseSecondQuantization(where: string, received: string): never {
  throw new ConfigError("already_quantized", "the weights are quantized already", {
    where,
    expected: "weights in floats (F32, F16 or BF16) for --quant",
    received,
    hint: "leave out --quant: the weights are used as they are",
  });
}
