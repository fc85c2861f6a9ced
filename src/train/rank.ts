import { groupName, type Mesh, type MeshAxis, meshAxes } from "../parallel/mesh.ts";
import type { ProcessGroup } from "../runtime/group.ts";

/** One rank of a run: the world that it belongs to, its place in the mesh, and its groups. */
export interface Rank {
  readonly world: ProcessGroup;
  readonly mesh: Mesh;
  /** A group for every set of axes that have several ranks, by `groupName`: what programs are compiled with. */
  readonly groups: ReadonlyMap<string, ProcessGroup>;
  /** All ranks again, for checkpoints that are written while the run goes on. */
  readonly saving: ProcessGroup;
  /** Ranks that share this process and its memory. */
  readonly ranksInProcess: number;
}

/** Makes the groups of a mesh. A collective: every rank of the world calls it. */
export async function joinMesh(
  world: ProcessGroup,
  mesh: Mesh,
  ranksInProcess = mesh.worldSize,
): Promise<Rank> {
  const wide = meshAxes.filter((axis) => mesh.sizes[axis] > 1);
  const groups = new Map<string, ProcessGroup>();
  for (const axes of subsetsOf(wide)) {
    const name = groupName(axes);
    groups.set(name, await world.subgroup(name, mesh.membersOf(axes)));
  }
  const saving = await world.subgroup("checkpoint", mesh.membersOf(meshAxes));
  return { world, mesh, groups, saving, ranksInProcess };
}

/** Every set of one axis or more, in one order on all ranks. */
function subsetsOf(axes: readonly MeshAxis[]): MeshAxis[][] {
  const subsets: MeshAxis[][] = [];
  for (let mask = 1; mask < 2 ** axes.length; mask++) {
    subsets.push(axes.filter((_, index) => (mask >> index) % 2 === 1));
  }
  return subsets;
}
