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

/** Embeddings and output projections. */
const vocabularyWeights = /(embed_tokens|lm_head|wte)\.weight$/;

/**
 * Keys, values and the way back from the MLP. With grouped queries, keys and values are small and serve many heads; the
 * errors of the others go straight into the residual stream. On stories260K, int4 in groups of 32 raises perplexity by
 * 6.5% with these in four bits, by 4.4% with keys alone among them in four bits, and by 3% with these in eight.
 */
const sensitiveWeights = /([kv]_proj|down_proj|mlp\.c_proj)\.weight$/;

/**
 * How a parameter is quantized; undefined where it stays as it is. Under int4 too, what four bits cost most is
 * int8: vocabularies, and `sensitiveWeights`, in the same groups as the weights that share their inputs.
 */
export function planQuantization(
  parameter: Parameter,
  family: ModelFamily,
  quantization: Quantization,
): PlannedMatrix | undefined {
  const matrix = matrixOf(parameter, family);
  return matrix === undefined ? undefined : { format: formatFor(parameter.name, quantization), ...matrix };
}

function formatFor(name: string, quantization: Quantization): QuantizedFormat {
  if (quantization.kind === "int8" || vocabularyWeights.test(name)) {
    return { bits: 8, group: 0, minimum: false };
  }
  const { group } = quantization;
  return sensitiveWeights.test(name) ? { bits: 8, group, minimum: false } : { bits: 4, group, minimum: true };
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
