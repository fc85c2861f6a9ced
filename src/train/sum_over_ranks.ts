import type { ProcessGroup } from "../runtime/group.ts";

/** The sum of each value over the ranks, added in their order in float64: the same bits on every rank. A collective. */
export async function sumOverRanks(
  world: ProcessGroup | undefined,
  values: readonly number[],
): Promise<number[]> {
  if (world === undefined || world.size === 1) return [...values];
  const received = await world.exchange(new Uint8Array(Float64Array.from(values).buffer));
  const sums = new Float64Array(values.length);
  for (const bytes of received) {
    const terms = new Float64Array(bytes.slice().buffer);
    for (let index = 0; index < sums.length; index++) sums[index]! += terms[index]!;
  }
  return [...sums];
}
