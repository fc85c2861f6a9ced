import type { ShardingTable } from "../../graph/annotations.ts";

/**
 * How a decoder's parameters lie under tensor parallelism (Shoeybi et al., "Megatron-LM", arXiv 1909.08053): the
 * projections into heads and into the MLP are cut by columns, those out of them by rows, so that each half of a
 * block sums once. Norms are whole; the embedding and the output projection are cut along the model's size.
 */
export function decoderSharding(config: { readonly heads: number; readonly groups: number }): ShardingTable {
  const heads = { name: "num_attention_heads", count: config.heads };
  // Fewer key/value heads than ranks: every rank computes all, and keeps those of its query heads.
  const groups = { name: "num_key_value_heads", count: config.groups, optional: true };
  return [
    { pattern: /\.q_proj\.weight$/, specification: ["tensor", null], units: heads },
    { pattern: /\.q_proj\.bias$/, specification: ["tensor"], units: heads },
    { pattern: /\.[kv]_proj\.weight$/, specification: ["tensor", null], units: groups },
    { pattern: /\.[kv]_proj\.bias$/, specification: ["tensor"], units: groups },
    { pattern: /\.o_proj\.weight$/, specification: [null, "tensor"], units: heads },
    { pattern: /\.(gate|up)_proj\.weight$/, specification: ["tensor", null] },
    { pattern: /\.down_proj\.weight$/, specification: [null, "tensor"] },
    { pattern: /(^|\.)(embed_tokens|lm_head)\.weight$/, specification: [null, "tensor"] },
  ];
}
