import type { ShardingTable } from "../../graph/annotations.ts";

/**
 * How GPT-2's parameters lie under tensor parallelism, with weights stored [inputs, outputs]: the MLP as in Megatron-LM
 * (arXiv 1909.08053). `c_attn` holds queries, keys and values side by side, which no cut of its columns leaves
 * together by heads: it is kept cut by rows, and its parts are exchanged for columns when they are needed.
 */
export function gpt2Sharding(config: { readonly heads: number }): ShardingTable {
  const heads = { name: "n_head", count: config.heads };
  return [
    { pattern: /\.attn\.c_attn\.weight$/, specification: ["tensor", null] },
    { pattern: /\.attn\.c_proj\.weight$/, specification: ["tensor", null], units: heads },
    { pattern: /\.mlp\.c_fc\.weight$/, specification: [null, "tensor"] },
    { pattern: /\.mlp\.c_fc\.bias$/, specification: ["tensor"] },
    { pattern: /\.mlp\.c_proj\.weight$/, specification: ["tensor", null] },
    { pattern: /(^|\.)(wte|wpe|lm_head)\.weight$/, specification: [null, "tensor"] },
  ];
}
