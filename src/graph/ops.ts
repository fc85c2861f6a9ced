import type { DType, TensorData } from "../base/dtype.ts";
import type { BlockType, QuantizedFormat, QuantizedParameter } from "../base/quantized_format.ts";
import type { Shape } from "../base/shape.ts";
import type { ElementwiseOperation, Expression } from "./expression.ts";

/** An op without attributes. */
export type NoAttributes = Readonly<Record<string, never>>;

/** Activations that a matrix product can apply to its result. Positions are the native codes. */
export const activations = ["none", "relu", "gelu", "gelu_tanh", "silu"] as const;
export type Activation = (typeof activations)[number];

/** Reductions; positions are the native codes. */
export const reductions = ["sum", "maximum", "minimum"] as const;
export type Reduction = (typeof reductions)[number];

/** Distributions of `random`; positions are the native codes. */
export const distributions = ["uniform", "normal"] as const;
export type Distribution = (typeof distributions)[number];

/**
 * Columns of the parameters of `sample`; positions are the native ones. Neutral values: temperature 1, `top_k` 0,
 * `top_p` 1, `min_p` 0, repetition penalty 1, the other penalties 0, logprobs -1. A temperature of 0 (below 1e-5)
 * takes the likeliest token; `logprobs` n >= 0 asks for the log-probability of the chosen token and of the n
 * likeliest, at most `maximumLogprobs`.
 */
export const samplingParameters = [
  "temperature",
  "top_k",
  "top_p",
  "min_p",
  "repetition_penalty",
  "presence_penalty",
  "frequency_penalty",
  "logprobs",
] as const;
export type SamplingParameter = (typeof samplingParameters)[number];

/** Columns of the seeds of `sample`; positions are the native ones. */
export const samplingSeeds = ["seed_low", "seed_high", "position", "answer"] as const;

/** Of how many of the likeliest tokens `sample` gives log-probabilities at the most. */
export const maximumLogprobs = 20;

/** Temperatures below this are 0: `sample` takes the likeliest token. */
export const lowestTemperature = 1e-5;

/** What `sample` gives instead of a token: logits that are NaN or infinite, or no token that is allowed. */
export const samplingFailures = { notFinite: -1, nothingAllowed: -2 } as const;

/**
 * What a leaf holds: an `input` changes every run; a `parameter` changes only when the caller says so
 * (work that depends on parameters alone is done once); `state` is memory that programs update.
 */
export type LeafKind = "input" | "parameter" | "state";

/** How attention masks: `window` 0 means none, w > 0 the last w tokens, the token itself among them. */
export interface AttentionAttributes {
  readonly scale: number;
  readonly causal: boolean;
  readonly window: number;
}

/** Attention of queries to one block of the keys. */
export interface AttentionBlockAttributes extends AttentionAttributes {
  /** How many of the pairs of a query and a key are expected to see each other, from 0 to 1: for costs alone. */
  readonly fraction: number;
}

/** The logsumexp of a query that has seen no key yet: finite, so that a search for what is not passes it over. */
export const nothingSeen = -1e30;

/** Which results of `attention_block_gradient` are added to operands; positions are the native codes. */
export const blockGradientSums = ["none", "queries", "keys"] as const;
export type BlockGradientSums = (typeof blockGradientSums)[number];

/** One of the weights of a `matmul_quantized`: its format and its output columns. */
export interface QuantizedColumns {
  readonly format: QuantizedFormat;
  readonly columns: number;
}

/** How numbers are sent as whole ones: of 8 or 4 bits, so many neighbours with one scale. */
export interface BlockFormat {
  readonly bits: 8 | 4;
  readonly block: number;
}

/**
 * A process group as programs name it. A program is compiled for one rank, so its place in the group is part of
 * it: every rank of a group records the same collectives of that group in the same order.
 */
export interface RankGroup {
  /** The mesh axes that the group spans, joined by "+", such as "data" or "data+sequence" (parallel/mesh.ts). */
  readonly axes: string;
  readonly size: number;
  /** This rank within the group. */
  readonly rank: number;
}

/**
 * Every op and its attributes: the vocabulary in which programs are written. Operands and results of the
 * ops that have kernels are listed in docs/kernels.md under the same names. Adding a name here makes the
 * type checker ask for its rules in `rules/`.
 */
export interface OpAttributes {
  /** Memory of the caller: no inputs. */
  leaf: { readonly name: string; readonly kind: LeafKind; readonly shape: Shape; readonly dtype: DType };
  /** Data that are part of the program. */
  constant: { readonly data: TensorData; readonly shape: readonly number[]; readonly dtype: DType };
  /** A tensor of one value. */
  fill: { readonly value: number; readonly shape: Shape; readonly dtype: DType };
  /** 0, 1, 2, … along `axis`. */
  iota: { readonly axis: number; readonly shape: Shape; readonly dtype: DType };
  /** Counter-based random numbers; input: seed i32 [2] (seed, step). */
  random: { readonly distribution: Distribution; readonly stream: number; readonly shape: Shape };

  /** One elementwise operation over operands that broadcast as in NumPy. */
  elementwise: { readonly operation: ElementwiseOperation };
  /** The same values in another dtype. */
  cast: { readonly dtype: DType };
  /** A fused elementwise expression; made by the fusion pass. */
  map: { readonly expression: Expression; readonly dtype: DType };

  reshape: { readonly shape: Shape };
  broadcast: { readonly shape: Shape };
  /** Output axis i is input axis `permutation[i]`. */
  transpose: { readonly permutation: readonly number[] };
  slice: { readonly starts: readonly number[]; readonly sizes: Shape };
  /** Zeros of `shape` with the input at `starts`: the gradient of `slice`. */
  pad_into: { readonly starts: readonly number[]; readonly shape: Shape };
  concatenate: { readonly axis: number };
  /** Rows of the first axis: x [N, inner..], ids [..] -> [ids.., inner..]. */
  gather: NoAttributes;
  /** Sums of rows by id: the gradient of `gather`. */
  scatter_add: { readonly rows: number };
  reduce: { readonly reduction: Reduction; readonly axes: readonly number[]; readonly keep: boolean };
  /** Index of the largest along the last axis, the first of equal ones. */
  argmax: NoAttributes;

  matmul: {
    readonly transposeA: boolean;
    readonly transposeB: boolean;
    readonly activation: Activation;
    readonly bias: boolean;
    readonly residual: boolean;
    readonly dtype: DType;
  };
  /** b in the panels that kernels read (docs/kernels.md): opaque bytes. */
  pack_matrix: { readonly transposeB: boolean; readonly elements: "f32" | "bf16" };
  matmul_packed: {
    readonly columns: number;
    readonly elements: "f32" | "bf16";
    readonly activation: Activation;
    readonly bias: boolean;
    readonly residual: boolean;
    readonly dtype: DType;
  };
  linear_cross_entropy: NoAttributes;
  /** The losses, and the gradients of hidden (in its dtype) and weight (always f32). */
  linear_cross_entropy_gradient: NoAttributes;

  /**
   * x [.., K] as bytes in groups with a symmetric scale each (group 0: one a row): values i8 [.., K padded to whole
   * groups], scales f32 and sums of the bytes i32 [.., groups].
   */
  quantize_rows: { readonly group: number };
  /**
   * Products of quantized rows with packed quantized weights, one or several that share the rows: inputs values,
   * scales, sums, weights.., biases.. (one a weight), residual? (of a single weight); one output a weight.
   */
  matmul_quantized: {
    readonly weights: readonly QuantizedColumns[];
    readonly inner: number;
    readonly activation: Activation;
    readonly bias: boolean;
    readonly residual: boolean;
    readonly dtype: DType;
  };
  /** GGUF blocks u8 [bytes], `rows` rows of `columns` elements, as packed panels: opaque bytes. */
  repack_blocks: { readonly type: BlockType; readonly rows: number; readonly columns: number };
  /** A float matrix [N, K] quantized into packed panels. */
  quantize_matrix: { readonly format: QuantizedFormat };
  /** Rows of a packed matrix [rows, columns] by id: packed, ids i32 [..] -> [.., columns]. */
  embedding_quantized: QuantizedParameter & { readonly dtype: DType };
  /** A packed matrix as floats [rows, columns]. */
  dequantize_matrix: QuantizedParameter & { readonly dtype: DType };

  /**
   * x [.., K] as whole numbers in blocks of `block` elements of a row that share a symmetric scale: values u8 [.., K]
   * of 8 bits (zero is 128), or [.., K / 2 rounded up] of 4 bits (zero is 8; two a byte, the first in the low half),
   * and scales f32 [.., blocks].
   */
  quantize_blocks: BlockFormat;
  /** Values and scales of `quantize_blocks` as rows of `columns` numbers. */
  dequantize_blocks: BlockFormat & { readonly columns: number; readonly dtype: DType };

  rms_norm: { readonly epsilon: number };
  rms_norm_gradient: NoAttributes;
  layer_norm: { readonly epsilon: number; readonly bias: boolean };
  layer_norm_gradient: NoAttributes;
  rope: { readonly inverse: boolean; readonly interleaved: boolean };
  /** silu(gate) * up, rounded once. */
  swiglu: NoAttributes;
  swiglu_gradient: NoAttributes;
  softmax: NoAttributes;
  softmax_gradient: NoAttributes;
  cross_entropy: NoAttributes;
  cross_entropy_gradient: NoAttributes;
  embedding: { readonly dtype: DType };
  embedding_gradient: { readonly vocabulary: number };

  attention: AttentionAttributes;
  attention_gradient: AttentionAttributes;
  /**
   * Attention of queries to those keys that a rank holds at the moment (Liu et al., "Ring Attention", arXiv
   * 2310.01889): q [queries, heads, size], k and v [keys, groups, size], the place of each query and key among all
   * tokens (i32; -1: padding), offsets of the sequences among all tokens, and, where other blocks were attended to
   * before, their result (f32) and logsumexp, which go on from there. Results: out in `dtype` and logsumexp f32
   * [heads, queries], 0 and `nothingSeen` for a query that has seen no key yet.
   */
  attention_block: AttentionBlockAttributes & { readonly dtype: DType };
  /**
   * What a block of keys contributes to the gradients, all f32: operands are the gradient of the result, q, k, v, the
   * logsumexp over all blocks, delta (`attention_delta`), the places of queries and keys, the offsets, and what is
   * added to: the gradient of q so far, or those of k and v.
   */
  attention_block_gradient: AttentionBlockAttributes & { readonly sums: BlockGradientSums };
  /** Sums of gradient times result over each head: both [tokens, heads, size] -> f32 [heads, tokens]. */
  attention_delta: NoAttributes;
  cache_write: NoAttributes;
  /**
   * Rows in i8, each with the scale (f32) by which its whole numbers are to be multiplied: cache [slots, groups, size],
   * scales [slots, groups], values [tokens, groups, size], slots [tokens].
   */
  cache_write_quantized: NoAttributes;
  /** Whole blocks of a cache over others, one copy after the other. */
  cache_copy: { readonly blockSize: number };
  paged_attention: { readonly scale: number; readonly window: number; readonly blockSize: number };
  /** The next token of each row of logits, and the likeliest ones. */
  sample: NoAttributes;

  adamw: NoAttributes;
  adam: NoAttributes;
  sgd: NoAttributes;
  lion: NoAttributes;
  adagrad: NoAttributes;
  sum_of_squares: NoAttributes;

  /**
   * Collectives take one or several tensors, each its own collective of the same kind, sent together (a bucket),
   * and give as many. They run on a lane of their own: started where they stand in the graph, waited for before
   * their first reader. Sums add the ranks' terms in the order of ranks, in float32, whatever the timing.
   */
  all_reduce: { readonly group: RankGroup };
  /** The sum of every rank's tensor; each rank keeps its part of `dimension`. */
  reduce_scatter: { readonly group: RankGroup; readonly dimension: number };
  /** Every rank's tensor, one after another along `dimension`. */
  all_gather: { readonly group: RankGroup; readonly dimension: number };
  /**
   * Each rank cuts its tensor along `split` and gives part i to rank i, which joins what it gets along
   * `concatenate` in the order of ranks.
   */
  all_to_all: { readonly group: RankGroup; readonly split: number; readonly concatenate: number };
  /** The tensor of rank (rank - offset) mod size: each rank's goes `offset` ranks on. */
  permute: { readonly group: RankGroup; readonly offset: number };
}

export type OpName = keyof OpAttributes;

/** The ops that ranks do together. */
export type CollectiveOp = Extract<
  OpName,
  "all_reduce" | "reduce_scatter" | "all_gather" | "all_to_all" | "permute"
>;

/** The ops over queries, keys and values, and over the cache of the latter. */
export type AttentionOp = Extract<
  OpName,
  | "attention"
  | "attention_gradient"
  | "attention_block"
  | "attention_block_gradient"
  | "attention_delta"
  | "cache_write"
  | "cache_write_quantized"
  | "cache_copy"
  | "paged_attention"
>;

/** The names, for loops over all ops; the type holds it to `OpAttributes`. */
const everyOp: Record<OpName, true> = {
  leaf: true,
  constant: true,
  fill: true,
  iota: true,
  random: true,
  elementwise: true,
  cast: true,
  map: true,
  reshape: true,
  broadcast: true,
  transpose: true,
  slice: true,
  pad_into: true,
  concatenate: true,
  gather: true,
  scatter_add: true,
  reduce: true,
  argmax: true,
  matmul: true,
  pack_matrix: true,
  matmul_packed: true,
  linear_cross_entropy: true,
  linear_cross_entropy_gradient: true,
  quantize_rows: true,
  matmul_quantized: true,
  repack_blocks: true,
  quantize_matrix: true,
  embedding_quantized: true,
  dequantize_matrix: true,
  quantize_blocks: true,
  dequantize_blocks: true,
  rms_norm: true,
  rms_norm_gradient: true,
  layer_norm: true,
  layer_norm_gradient: true,
  rope: true,
  swiglu: true,
  swiglu_gradient: true,
  softmax: true,
  softmax_gradient: true,
  cross_entropy: true,
  cross_entropy_gradient: true,
  embedding: true,
  embedding_gradient: true,
  attention: true,
  attention_gradient: true,
  attention_block: true,
  attention_block_gradient: true,
  attention_delta: true,
  cache_write: true,
  cache_write_quantized: true,
  cache_copy: true,
  paged_attention: true,
  sample: true,
  adamw: true,
  adam: true,
  sgd: true,
  lion: true,
  adagrad: true,
  sum_of_squares: true,
  all_reduce: true,
  reduce_scatter: true,
  all_gather: true,
  all_to_all: true,
  permute: true,
};

const collectives: Record<CollectiveOp, true> = {
  all_reduce: true,
  reduce_scatter: true,
  all_gather: true,
  all_to_all: true,
  permute: true,
};

/** Whether ranks do an op together. */
export function isCollective(op: OpName): op is CollectiveOp {
  return Object.hasOwn(collectives, op);
}

/** All op names. */
export const opNames = Object.keys(everyOp) as OpName[];

/**
 * Outputs that are the memory of an input, updated in place: `[output, input]` pairs. Such an op must be
 * the last reader of what it overwrites.
 */
export const inPlaceOutputs: Partial<Record<OpName, readonly (readonly [number, number])[]>> = {
  cache_write: [[0, 0]],
  cache_write_quantized: [
    [0, 0],
    [1, 1],
  ],
  cache_copy: [[0, 0]],
  adamw: [
    [0, 0],
    [1, 2],
    [2, 3],
  ],
  adam: [
    [0, 0],
    [1, 2],
    [2, 3],
  ],
  sgd: [
    [0, 0],
    [1, 2],
  ],
  lion: [
    [0, 0],
    [1, 2],
  ],
  adagrad: [
    [0, 0],
    [1, 2],
  ],
};

/** Outputs whose kernels can add to float32 memory instead of overwriting it; all of an op's together. */
export const accumulatingOutputs: Partial<Record<OpName, readonly number[]>> = {
  matmul: [0],
  linear_cross_entropy_gradient: [2],
  rms_norm_gradient: [1],
  layer_norm_gradient: [1, 2],
  embedding_gradient: [0],
};
