import type { DType } from "../base/dtype.ts";
import type { SymbolValues } from "../base/shape.ts";
import { cast as castValue } from "../graph/build.ts";
import { apply } from "../graph/graph.ts";
import type { AttentionAttributes } from "../graph/ops.ts";
import { derive, Tensor } from "./tensor.ts";

/** Values of symbolic dimensions, re-exported for those who run compiled functions. */
export type { SymbolValues };

/**
 * x W^T + b over the last axis: x `[.., in]`, weight `[out, in]` as in PyTorch, bias `[out]`. Computed in x's
 * dtype and stored in `dtype`: x's by default, "f32" to keep what the accumulators hold.
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor, dtype: DType = x.dtype): Tensor {
  const operands = [x.value, castValue(weight.value, x.dtype)];
  if (bias !== undefined) operands.push(bias.value);
  const product = apply("matmul", operands, {
    transposeA: false,
    transposeB: true,
    activation: "none",
    bias: bias !== undefined,
    residual: false,
    dtype,
  });
  return derive(product, x, weight, ...(bias === undefined ? [] : [bias]));
}

/** The same with the weight stored `[in, out]`, as GPT-2's checkpoints have it. */
export function linearTransposed(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  const product = apply("matmul", [x.value, castValue(weight.value, x.dtype), bias.value], {
    transposeA: false,
    transposeB: false,
    activation: "none",
    bias: true,
    residual: false,
    dtype: x.dtype,
  });
  return derive(product, x, weight, bias);
}

/** Rows of `weight` `[vocabulary, size]` for ids i32 `[..]`: `[.., size]` in `dtype`. */
export function embedding(weight: Tensor, ids: Tensor, dtype: DType): Tensor {
  return derive(apply("embedding", [weight.value, ids.value], { dtype }), weight, ids);
}

/** x / rms(x) * weight over the last axis (Zhang and Sennrich, arXiv 1910.07467). */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  return derive(apply("rms_norm", [x.value, weight.value], { epsilon }), x, weight);
}

/** (x - mean) / deviation * weight + bias over the last axis (Ba et al., arXiv 1607.06450). */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  const operands = [x.value, weight.value, bias.value];
  return derive(apply("layer_norm", operands, { epsilon, bias: true }), x, weight, bias);
}

/** silu(gate) * up, both of one shape and dtype (Shazeer, arXiv 2002.05202). */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return derive(apply("swiglu", [gate.value, up.value], {}), gate, up);
}

/** Rotates pairs of x `[tokens, heads, size]` by position (Su et al., arXiv 2104.09864), half-split pairs. */
export function rope(x: Tensor, positions: Tensor, frequencies: Tensor): Tensor {
  const operands = [x.value, positions.value, frequencies.value];
  return derive(apply("rope", operands, { inverse: false, interleaved: false }), x, positions, frequencies);
}

/**
 * Attention over packed sequences (Dao, "FlashAttention-2", arXiv 2307.08691): q `[tokens, heads, size]`,
 * k and v `[tokens, groups, size]`, offsets i32 `[sequences + 1]`. Gives `[tokens, heads, size]`.
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  offsets: Tensor,
  options: AttentionAttributes,
): Tensor {
  return derive(apply("attention", [q.value, k.value, v.value, offsets.value], options), q, k, v, offsets);
}

/** Writes values `[tokens, groups, size]` into a cache `[slots, groups, size]` at slots i32 `[tokens]`. */
export function cacheWrite(cache: Tensor, values: Tensor, slots: Tensor): Tensor {
  return derive(apply("cache_write", [cache.value, values.value, slots.value], {}), cache, values, slots);
}

/** A cache in i8 `[slots, groups, size]` with a scale f32 `[slots, groups]` for each token and head. */
export interface QuantizedCache {
  readonly cache: Tensor;
  readonly scales: Tensor;
}

/**
 * Writes values `[tokens, groups, size]` into a cache of i8 at slots i32 `[tokens]`, -1 nowhere. Each row of `size`
 * numbers is rounded to whole multiples of its scale, its largest magnitude / 127. Updates both memories in place.
 */
export function cacheWriteQuantized(
  { cache, scales }: QuantizedCache,
  values: Tensor,
  slots: Tensor,
): QuantizedCache {
  const operands = [cache, scales, values, slots];
  const { node } = apply(
    "cache_write_quantized",
    operands.map((tensor) => tensor.value),
    {},
  );
  return {
    cache: derive({ node, index: 0 }, ...operands),
    scales: derive({ node, index: 1 }, ...operands),
  };
}

/**
 * Copies whole blocks of a cache `[slots, inner..]` over others, as answers that share a prompt part (copy-on-write):
 * block `sources[i]` over block `destinations[i]`, both i32 `[copies]`, one after the other; a destination of -1 is
 * passed over. Block b is slots b * blockSize to (b + 1) * blockSize - 1. The cache's memory is updated in place.
 */
export function cacheCopy(cache: Tensor, sources: Tensor, destinations: Tensor, blockSize: number): Tensor {
  const operands = [cache.value, sources.value, destinations.value];
  return derive(apply("cache_copy", operands, { blockSize }), cache, sources, destinations);
}

/** Where the sequences of a batch lie in a paged cache: see `paged_attention` in docs/kernels.md. */
export interface PagedBatch {
  readonly queryOffsets: Tensor;
  readonly contextLengths: Tensor;
  readonly blockTables: Tensor;
  readonly blockSize: number;
}

/**
 * Attention of new tokens q `[tokens, heads, size]` over a paged cache `[slots, groups, size]` (Kwon et al.,
 * "PagedAttention", arXiv 2309.06180), both halves of it in a float dtype or both quantized.
 */
export function pagedAttention<Cache extends Tensor | QuantizedCache>(
  q: Tensor,
  keys: Cache,
  values: NoInfer<Cache>,
  batch: PagedBatch,
  options: { readonly scale: number; readonly window: number },
): Tensor {
  const caches: (Tensor | QuantizedCache)[] = [keys, values];
  const tensors = [
    q,
    ...caches.map((cache) => ("scales" in cache ? cache.cache : cache)),
    batch.queryOffsets,
    batch.contextLengths,
    batch.blockTables,
    ...caches.flatMap((cache) => ("scales" in cache ? [cache.scales] : [])),
  ];
  const attributes = { ...options, blockSize: batch.blockSize };
  return derive(
    apply(
      "paged_attention",
      tensors.map((tensor) => tensor.value),
      attributes,
    ),
    ...tensors,
  );
}

/**
 * Cross-entropy of a projection without its logits: hidden `[tokens, size]`, weight `[vocabulary, size]`,
 * targets i32 `[tokens]`. Gives f32 losses `[tokens]`, 0 where the target is -1.
 */
export function linearCrossEntropy(hidden: Tensor, weight: Tensor, targets: Tensor): Tensor {
  const operands = [hidden.value, castValue(weight.value, hidden.dtype), targets.value];
  return derive(apply("linear_cross_entropy", operands, {}), hidden, weight, targets);
}

/** Cross-entropy of logits `[rows, classes]` against targets i32 `[rows]`: f32 losses `[rows]`. */
export function crossEntropy(logits: Tensor, targets: Tensor): Tensor {
  return derive(apply("cross_entropy", [logits.value, targets.value], {}), logits, targets);
}

/** Tensors one after another along an axis. */
export function concatenate(tensors: readonly Tensor[], axis = 0): Tensor {
  return derive(
    apply(
      "concatenate",
      tensors.map((tensor) => tensor.value),
      { axis },
    ),
    ...tensors,
  );
}

/** Random numbers of a shape from a seed i32 `[2]` (seed, step): the same wherever they are drawn. */
export function random(
  seed: Tensor,
  shape: readonly number[],
  stream: number,
  distribution: "uniform" | "normal",
): Tensor {
  return derive(apply("random", [seed.value], { distribution, stream, shape }), seed);
}

/**
 * Zeroes elements with `probability` and scales the rest up (Srivastava et al., JMLR 2014). Which ones follows
 * from seed i32 `[2]` and stream: give each use a stream of its own.
 */
export function dropout(x: Tensor, seed: Tensor, stream: number, probability: number): Tensor {
  const draws = new Tensor(
    apply("random", [seed.value], { distribution: "uniform", stream, shape: x.shape }),
    seed.session,
  );
  return draws.less(probability).where(0, x.multiply(1 / (1 - probability)));
}
