import type { Rank } from "./rank.ts";

/**
 * The sum of a number over the ranks of the world that count, added in the order of ranks in float64: every rank gets
 * the same bits. A collective.
 * @param counts whether this rank's term counts
 */
export async function sumOverRanks(
  rank: Rank | undefined,
  terms: readonly { readonly value: number; readonly counts: boolean }[],
): Promise<number[]> {
  const own = Float64Array.from(terms, ({ value, counts }) => (counts ? value : 0));
  if (rank === undefined || rank.world.size === 1) return [...own];
  const parts = await rank.world.exchange(new Uint8Array(own.buffer));
  const sums = new Float64Array(own.length);
  for (const bytes of parts) {
    const term = new Float64Array(bytes.slice().buffer);
    for (let index = 0; index < sums.length; index++) sums[index]! += term[index]!;
  }
  return [...sums];
}
