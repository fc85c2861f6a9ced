import { Mesh, type MeshAxis, type MeshSizes } from "../../src/parallel/mesh.ts";
import type { EmulatedLink, ProcessGroup } from "../../src/runtime/group.ts";
import { createNativeBackend, type NativeBackend } from "../../src/runtime/native/backend.ts";
import { createLocalWorld } from "../../src/runtime/native/local_world.ts";
import type { Trace } from "../../src/runtime/trace.ts";

/** A rank of this process with its groups and a backend of its own. */
export interface LocalRank {
  readonly rank: number;
  readonly mesh: Mesh;
  readonly world: ProcessGroup;
  readonly groups: ReadonlyMap<string, ProcessGroup>;
  readonly backend: NativeBackend;
}

/** How to start ranks for a test. */
export interface LocalRanksOptions {
  readonly timeoutSeconds?: number;
  readonly links?: Readonly<Partial<Record<string, EmulatedLink>>>;
  readonly trace?: Trace;
}

/** The ranks of a mesh with a group for each of these names of axes, runs `work`, and ends them. */
export async function withLocalRanks<Result>(
  sizes: Partial<MeshSizes>,
  axes: readonly string[],
  work: (ranks: readonly LocalRank[]) => Promise<Result>,
  { timeoutSeconds = 20, links = {}, trace }: LocalRanksOptions = {},
): Promise<Result> {
  const size = new Mesh(sizes, 0).worldSize;
  const worlds = createLocalWorld(size, { timeoutSeconds, links });
  const ranks = await Promise.all(
    worlds.map(async (world, rank): Promise<LocalRank> => {
      const mesh = new Mesh(sizes, rank);
      const made = axes.map(
        async (name) => [name, await world.subgroup(name, membersOf(sizes, name, rank))] as const,
      );
      const backend = createNativeBackend({
        isolated: true,
        threads: 1,
        ...(trace === undefined ? {} : { trace: trace.forRank(rank) }),
      });
      return { rank, mesh, world, groups: new Map(await Promise.all(made)), backend };
    }),
  );
  try {
    return await work(ranks);
  } finally {
    for (const { backend, groups, world } of ranks) {
      backend.dispose();
      for (const group of groups.values()) group.close();
      world.close();
    }
  }
}

/** The ranks of a rank's group over axes named as in programs. */
export function membersOf(sizes: Partial<MeshSizes>, axes: string, rank: number): number[] {
  return new Mesh(sizes, rank).membersOf(axes.split("+") as MeshAxis[]);
}
