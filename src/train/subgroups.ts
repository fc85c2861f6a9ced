import type { ZeroSettings } from "../parallel/zero/settings.ts";
import { acrossName, runName } from "../parallel/zero/subgroups.ts";
import type { ProcessGroup } from "../runtime/group.ts";
import type { Rank } from "./rank.ts";

/**
 * The rank with the groups that hierarchical partitions need besides those of the mesh. A collective: every rank of
 * the world calls it, before it makes its engine.
 */
export async function joinSubgroups(
  rank: Rank,
  { shardSize, secondarySize }: Pick<ZeroSettings, "shardSize" | "secondarySize">,
): Promise<Rank> {
  const sizes = new Set([shardSize, secondarySize]);
  const groups = new Map<string, ProcessGroup>(rank.groups);
  for (const [axes, group] of rank.groups) {
    for (const size of sizes) {
      if (size === undefined || size >= group.size || group.size % size !== 0) continue;
      const first = group.rank - (group.rank % size);
      const run = Array.from({ length: size }, (_, index) => first + index);
      const across = Array.from(
        { length: group.size / size },
        (_, index) => index * size + (group.rank % size),
      );
      groups.set(runName(axes, size), await group.subgroup(runName(axes, size), run));
      groups.set(acrossName(axes, size), await group.subgroup(acrossName(axes, size), across));
    }
  }
  return { ...rank, groups };
}
