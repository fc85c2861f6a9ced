/**
 * Which tokens each rank of the sequence axis holds: a stretch of neighbours (Liu et al., "Ring Attention", arXiv
 * 2310.01889), or every n-th one, so that under a causal mask all ranks have the same work (Brandon et al., "Striped
 * Attention", arXiv 2311.09431).
 */
export type TokenOrder = "contiguous" | "striped";

/**
 * The places, among `tokens` tokens, of those that rank `rank` of `ranks` holds, in the order in which it holds them.
 * `ranks` divides `tokens`.
 */
export function placesOf(order: TokenOrder, tokens: number, rank: number, ranks: number): Int32Array {
  const own = tokens / ranks;
  const [first, step] = order === "contiguous" ? [rank * own, 1] : [rank, ranks];
  return Int32Array.from({ length: own }, (_, index) => first + index * step);
}

/**
 * The order in which a batch's tokens must lie so that contiguous parts are what each rank holds: the token that
 * comes at position i is `tokenOrder(…)[i]`. Ids, targets and positions are reordered alike, offsets are not.
 */
export function tokenOrder(order: TokenOrder, tokens: number, ranks: number): Int32Array {
  const all = new Int32Array(tokens);
  for (let rank = 0; rank < ranks; rank++) {
    all.set(placesOf(order, tokens, rank, ranks), (rank * tokens) / ranks);
  }
  return all;
}

/** A packed batch with its tokens in the order of which ranks take contiguous parts. Offsets stay those of the tokens' places. */
export function reorderTokens<
  Batch extends Readonly<Record<"tokens" | "targets" | "positions" | "offsets", Int32Array>>,
>(batch: Batch, order: TokenOrder, ranks: number): Batch {
  if (order === "contiguous") return batch;
  const places = tokenOrder(order, batch.tokens.length, ranks);
  const reordered = (data: Int32Array): Int32Array => places.map((place) => data[place]!);
  const { tokens, targets, positions } = batch;
  return {
    ...batch,
    tokens: reordered(tokens),
    targets: reordered(targets),
    positions: reordered(positions),
  };
}
