import { ConfigError } from "../../base/errors.ts";
import type { RankGroup } from "../../graph/ops.ts";

/** A group cut into runs of consecutive ranks, as one rank sees it. */
export interface SplitGroup {
  /** The run of consecutive ranks that this one is in. */
  readonly run: RankGroup;
  /** The ranks at the same place of all runs. */
  readonly across: RankGroup;
}

/**
 * Cuts a group into runs of `size` consecutive ranks: those that share a machine, where ranks are started in order.
 * @throws ConfigError where runs of that size do not fill the group.
 */
export function splitGroup({ axes, size: ranks, rank }: RankGroup, size: number): SplitGroup {
  if (ranks % size !== 0) {
    throw new ConfigError("bad_subgroup", "a group of ranks cannot be cut into parts of this size", {
      where: "zero_optimization",
      expected: `a divisor of the ${ranks} ranks over "${axes}": ${divisorsOf(ranks).join(", ")}`,
      received: String(size),
    });
  }
  return {
    run: { axes: runName(axes, size), size, rank: rank % size },
    across: { axes: acrossName(axes, size), size: ranks / size, rank: Math.floor(rank / size) },
  };
}

/** What programs call a run of `size` consecutive ranks of a group. */
export function runName(axes: string, size: number): string {
  return `${axes}/${size}`;
}

/** What programs call the ranks at one place of all runs of `size` ranks. */
export function acrossName(axes: string, size: number): string {
  return `${axes}%${size}`;
}

function divisorsOf(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1).filter((size) => count % size === 0);
}
