import { withScope } from "../graph/scope.ts";
import { attention, rope } from "../tensor/functions.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Linear, RmsNorm } from "./layers.ts";
import type { ParameterSpace } from "./parameters.ts";

/**
 * What a layer's attention sees. Training attends within packed sequences; generation attends to a cache.
 * Models call `attend` and know nothing of the difference.
 */
export interface AttentionContext {
  /** Attention of layer `layer` over q `[tokens, heads, size]`, k and v `[tokens, groups, size]`. */
  attend(
    layer: number,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    options: { readonly scale: number; readonly window: number },
  ): Tensor;
}

/** Causal attention within packed sequences: offsets i32 `[sequences + 1]`. */
export function packedContext(offsets: Tensor): AttentionContext {
  return {
    attend: (_layer, q, k, v, { scale, window }) =>
      attention(q, k, v, offsets, { scale, window, causal: true }),
  };
}

/** The shape of a self-attention layer. */
export interface SelfAttentionOptions {
  readonly size: number;
  readonly heads: number;
  /** Key/value heads: fewer than `heads` is grouped-query, 1 is multi-query attention. */
  readonly groups: number;
  readonly headSize: number;
  /** Biases of the query, key and value projections. */
  readonly bias: boolean;
  readonly outputBias: boolean;
  /** Epsilon of the RMS norms of each query and key head; undefined for none (Qwen3). */
  readonly headNormEpsilon: number | undefined;
  /** Each token sees only the last `window` tokens; 0 for all. */
  readonly window: number;
  readonly deviation: number;
  readonly outputDeviation: number;
}

/** Self-attention with rotary positions and grouped heads (Ainslie et al., "GQA", arXiv 2305.13245). */
export class SelfAttention {
  readonly #options: SelfAttentionOptions;
  readonly #query: Linear;
  readonly #key: Linear;
  readonly #value: Linear;
  readonly #output: Linear;
  readonly #queryNorm: RmsNorm | undefined;
  readonly #keyNorm: RmsNorm | undefined;
  readonly #name = "self_attn";

  constructor(space: ParameterSpace, options: SelfAttentionOptions) {
    const { size, heads, groups, headSize, bias, outputBias, headNormEpsilon: epsilon, deviation } = options;
    this.#options = options;
    this.#query = new Linear(space.child("q_proj"), {
      inputs: size,
      outputs: heads * headSize,
      bias,
      deviation,
    });
    this.#key = new Linear(space.child("k_proj"), {
      inputs: size,
      outputs: groups * headSize,
      bias,
      deviation,
    });
    this.#value = new Linear(space.child("v_proj"), {
      inputs: size,
      outputs: groups * headSize,
      bias,
      deviation,
    });
    this.#output = new Linear(space.child("o_proj"), {
      inputs: heads * headSize,
      outputs: size,
      bias: outputBias,
      deviation: options.outputDeviation,
    });
    if (epsilon !== undefined) {
      this.#queryNorm = new RmsNorm(space.child("q_norm"), { size: headSize, epsilon });
      this.#keyNorm = new RmsNorm(space.child("k_norm"), { size: headSize, epsilon });
    }
  }

  /** @param x `[tokens, size]` @param positions i32 `[tokens]` @param frequencies of `rotaryTable` */
  forward(
    x: Tensor,
    layer: number,
    positions: Tensor,
    frequencies: Tensor,
    context: AttentionContext,
  ): Tensor {
    return withScope(this.#name, () => {
      const { heads, groups, headSize, window } = this.#options;
      const tokens = x.shape[0]!;
      const split = (projected: Tensor, count: number): Tensor =>
        projected.reshape([tokens, count, headSize]);
      let q = split(this.#query.forward(x), heads);
      let k = split(this.#key.forward(x), groups);
      const v = split(this.#value.forward(x), groups);
      if (this.#queryNorm !== undefined) q = this.#queryNorm.forward(q);
      if (this.#keyNorm !== undefined) k = this.#keyNorm.forward(k);
      q = rope(q, positions, frequencies);
      k = rope(k, positions, frequencies);
      const mixed = context.attend(layer, q, k, v, { scale: 1 / Math.sqrt(headSize), window });
      return this.#output.forward(mixed.reshape([tokens, heads * headSize]));
    });
  }
}
