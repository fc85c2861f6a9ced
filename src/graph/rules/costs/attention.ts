import type { AttentionAttributes, AttentionOp } from "../../ops.ts";
import type { ConcreteType, CostRule } from "../cost.ts";
import { elements, moving, totalBytes } from "./common.ts";

/**
 * Pairs of a query and a key that see each other, in `tokens` tokens of `sequences` equally long sequences.
 * The real lengths are data; equal ones are those with the least work, so that rates computed from this
 * count never flatter.
 */
export function visiblePairs(
  tokens: number,
  sequences: number,
  { causal, window }: Pick<AttentionAttributes, "causal" | "window">,
): number {
  if (tokens === 0 || sequences <= 0) return 0;
  const length = Math.max(1, tokens / sequences);
  const past = (length * (length - 1)) / 2;
  // Of the keys before a query, a window hides those that are `window` or more tokens back.
  const far = window > 0 ? Math.max(0, length - window) : 0;
  const hidden = (far * (far + 1)) / 2;
  const future = causal ? 0 : past;
  return (tokens / length) * (length + past - hidden + future);
}

/** One product of the scores' size, over all heads. */
function productOfScores(q: ConcreteType, offsets: ConcreteType, attributes: AttentionAttributes): number {
  const [tokens, heads, size] = q.shape as [number, number, number];
  return 2 * size * heads * visiblePairs(tokens, offsets.shape[0]! - 1, attributes);
}

/** One product of the size of a block's scores that are expected to be seen, over all heads. */
function blockProduct(q: ConcreteType, k: ConcreteType, fraction: number): number {
  return 2 * elements(q) * k.shape[0]! * fraction;
}

/** Costs of the attention ops: products over the pairs that see each other. */
export const attentionCosts: {
  readonly [Op in AttentionOp]: CostRule<Op>;
} = {
  attention: (inputs, outputs, attributes) =>
    moving(inputs, outputs, 2 * productOfScores(inputs[0]!, inputs[3]!, attributes)),
  // The scores again, and the gradients of probabilities, v, q and k.
  attention_gradient: (inputs, outputs, attributes) =>
    moving(inputs, outputs, 5 * productOfScores(inputs[1]!, inputs[6]!, attributes)),
  attention_block: (inputs, outputs, { fraction }) =>
    moving(inputs, outputs, 2 * blockProduct(inputs[0]!, inputs[1]!, fraction)),
  attention_block_gradient: (inputs, outputs, { fraction }) =>
    moving(inputs, outputs, 5 * blockProduct(inputs[1]!, inputs[2]!, fraction)),
  attention_delta: (inputs, outputs) => moving(inputs, outputs, 2 * elements(inputs[0])),
  cache_write: ([cache, values, slots]) => ({
    flops: 0,
    bytes: totalBytes({ shape: values!.shape, dtype: cache!.dtype }, values!, slots!),
  }),
  // The largest magnitude, then a division and a rounding an element.
  cache_write_quantized: ([cache, scales, values, slots]) => {
    const tokens = values!.shape[0]!;
    const written = { shape: values!.shape, dtype: cache!.dtype };
    const factors = { shape: [tokens, scales!.shape[1]!], dtype: scales!.dtype };
    return { flops: 3 * elements(values), bytes: totalBytes(written, factors, values!, slots!) };
  },
  cache_copy: ([cache, sources, destinations], _outputs, { blockSize }) => {
    const moved = { shape: [sources!.shape[0]! * blockSize, ...cache!.shape.slice(1)], dtype: cache!.dtype };
    return { flops: 0, bytes: totalBytes(moved, moved, sources!, destinations!) };
  },
  // Contexts are data: each is taken to fill its row of the block table, each query to see all of it.
  paged_attention: ([q, k, , , contexts, tables, scales], outputs, { window, blockSize }) => {
    const context = tables!.shape[1]! * blockSize;
    const seen = window > 0 ? Math.min(context, window) : context;
    const read = { shape: [contexts!.shape[0]! * seen, ...k!.shape.slice(1)], dtype: k!.dtype };
    const factors =
      scales === undefined ? [] : [{ shape: [2 * read.shape[0]!, scales.shape[1]!], dtype: scales.dtype }];
    return {
      flops: 4 * elements(q) * seen,
      bytes: totalBytes(q!, read, read, ...factors, contexts!, tables!, ...outputs),
    };
  },
};
