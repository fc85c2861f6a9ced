import { gridGroups, type SequenceGrid } from "../parallel/context/grid.ts";
import type { ProcessGroup } from "../runtime/group.ts";
import type { Rank } from "./rank.ts";

/**
 * The rank with a group along each dimension of a grid over its sequence axis, besides those of the mesh. A
 * collective: every rank of the world calls it, before it makes its engine.
 */
export async function joinGrid(rank: Rank, grid: SequenceGrid): Promise<Rank> {
  const groups = new Map<string, ProcessGroup>(rank.groups);
  for (const { group, members } of gridGroups(rank.mesh, grid).values()) {
    if (!groups.has(group.axes)) groups.set(group.axes, await rank.world.subgroup(group.axes, members));
  }
  return { ...rank, groups };
}
