import type { AttentionOp } from "../../ops.ts";
import type { Label, ShardingRule } from "../sharding.ts";
import { labelsOf } from "./common.ts";

/** Tokens attend to each other and stay whole; heads are cut with the key/value groups that they share. */
const heads: readonly Label[] = [null, "heads", null];
const statistic: readonly Label[] = ["heads", null];

const queryHeads: readonly Label[] = ["queries", "heads", null];
const queryStatistic: readonly Label[] = ["heads", "queries"];
const blockOperands: readonly (readonly Label[])[] = [
  queryHeads,
  heads,
  heads,
  ["queries"],
  [null],
  [null],
  queryHeads,
  queryStatistic,
];

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
  // Queries are independent of each other; a block of the keys is one sum.
  attention_block: (inputs) => ({
    inputs: blockOperands.slice(0, inputs.length),
    outputs: [queryHeads, queryStatistic],
    linear: [],
  }),
  attention_block_gradient: (_inputs, _outputs, { sums }) => {
    // What is added to the gradients of the keys would be added by each of those who share the queries.
    const own = (labels: readonly Label[]): Label[] =>
      labels.map((label) => (label === "queries" && sums === "keys" ? null : label));
    const before = sums === "none" ? [] : sums === "queries" ? [queryHeads] : [heads, heads];
    const operands = [queryHeads, queryHeads, heads, heads, queryStatistic, queryStatistic];
    return {
      inputs: [...operands, ["queries"], [null], [null], ...before].map(own),
      outputs: [queryHeads, heads, heads].map(own),
      // The gradient of the result and delta, with what is added to where there is something.
      linear: sums === "none" ? [[0, 5]] : [],
    };
  },
  attention_delta: () => ({
    inputs: [queryHeads, queryHeads],
    outputs: [queryStatistic],
    linear: [[0], [1]],
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
