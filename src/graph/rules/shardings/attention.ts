import type { AttentionOp } from "../../ops.ts";
import type { Label, ShardingRule } from "../sharding.ts";
import { labelsOf } from "./common.ts";

/** Tokens attend to each other and stay whole; heads are cut with the key/value groups that they share. */
const heads: readonly Label[] = [null, "heads", null];
const statistic: readonly Label[] = ["heads", null];

/** How the attention ops may be cut. Slots of a cache stay whole: block tables name them. */
export const attentionShardings: { readonly [Op in AttentionOp]: ShardingRule<Op> } = {
  attention: () => ({
    inputs: [heads, heads, heads, [null]],
    outputs: [heads, statistic],
    linear: [],
  }),
  attention_gradient: () => ({
    inputs: [heads, heads, heads, heads, heads, statistic, [null]],
    outputs: [heads, heads, heads],
    linear: [[0]],
  }),
  cache_write: ([cache]) => {
    const labels = labelsOf(cache).with(0, null);
    return { inputs: [labels, labels, [null]], outputs: [labels], linear: [] };
  },
  // Each head of a token has a scale of its own.
  cache_write_quantized: () => ({
    inputs: [heads, [null, "heads"], heads, [null]],
    outputs: [heads, [null, "heads"]],
    linear: [],
  }),
  cache_copy: ([cache]) => {
    const labels = labelsOf(cache).with(0, null);
    return { inputs: [labels, [null], [null]], outputs: [labels], linear: [] };
  },
  paged_attention: (inputs) => ({
    inputs: inputs.map((_, index) => pagedOperands[index]!),
    outputs: [heads],
    linear: [],
  }),
};

const pagedOperands: readonly (readonly Label[])[] = [
  heads,
  heads,
  heads,
  [null],
  [null],
  [null, null],
  [null, "heads"],
  [null, "heads"],
];
