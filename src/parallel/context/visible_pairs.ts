import type { AttentionAttributes } from "../../graph/ops.ts";

/**
 * How many pairs of a query and a key of one long sequence see each other, given their places: what a step of a ring
 * computes. Places may be in any order.
 */
export function visiblePairs(
  queryPlaces: Int32Array,
  keyPlaces: Int32Array,
  { causal, window }: Pick<AttentionAttributes, "causal" | "window">,
): number {
  const keys = keyPlaces.slice().sort();
  let pairs = 0;
  for (const place of queryPlaces) {
    const first = window > 0 ? countBelow(keys, place - window + 1) : 0;
    pairs += (causal ? countBelow(keys, place + 1) : keys.length) - first;
  }
  return pairs;
}

/** How many of the rising numbers are below a limit. */
function countBelow(sorted: Int32Array, limit: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
