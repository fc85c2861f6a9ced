import { InternalError } from "../../base/errors.ts";
import type { Graph } from "../../graph/graph.ts";
import { groupName, type Mesh, meshAxes } from "../../parallel/mesh.ts";
import type { CompileOptions } from "../../runtime/backend.ts";
import type { ProcessGroup } from "../../runtime/group.ts";
import type { PlannedExecutable, PlanningBackend } from "../../runtime/planning.ts";
import type { Rank } from "../rank.ts";

/** A program of a planned rank. */
export interface PlannedProgram {
  readonly name: string;
  readonly executable: PlannedExecutable;
}

/** A backend that remembers what it compiles. */
export interface RecordingBackend extends PlanningBackend {
  /** In the order of compilation; of several programs of one name the last: those before it were tries. */
  programs(): readonly PlannedProgram[];
}

/** The backend, remembering every program. */
export function recordPrograms(backend: PlanningBackend): RecordingBackend {
  const programs = new Map<string, PlannedProgram>();
  return {
    ...backend,
    programs: () => [...programs.values()],
    compile: (graph: Graph, options?: CompileOptions): PlannedExecutable => {
      const executable = backend.compile(graph, options);
      programs.delete(graph.name);
      programs.set(graph.name, { name: graph.name, executable });
      return executable;
    },
  };
}

/**
 * A rank of a mesh that nobody runs: its groups know their members, and carry no data.
 * @param ranksInProcess how many ranks share its process
 */
export async function planRank(mesh: Mesh, ranksInProcess: number): Promise<Rank> {
  const members = Array.from({ length: mesh.worldSize }, (_, rank) => rank);
  const world = plannedGroup("world", members, mesh.rank);
  const groups = new Map<string, ProcessGroup>();
  const wide = meshAxes.filter((axis) => mesh.sizes[axis] > 1);
  for (let mask = 1; mask < 2 ** wide.length; mask++) {
    const axes = wide.filter((_, index) => (mask >> index) % 2 === 1);
    const name = groupName(axes);
    groups.set(name, plannedGroup(name, mesh.membersOf(axes), mesh.rank));
  }
  const saving = plannedGroup("checkpoint", members, mesh.rank);
  return { world, mesh, groups, saving, ranksInProcess };
}

function plannedGroup(name: string, members: readonly number[], worldRank: number): ProcessGroup {
  const carriesNothing = (): Promise<never> =>
    Promise.reject(new InternalError(`the group "${name}" of a plan carries no data`));
  return {
    name,
    members,
    rank: members.indexOf(worldRank),
    size: members.length,
    allReduce: carriesNothing,
    reduceScatter: carriesNothing,
    allGather: carriesNothing,
    allToAll: carriesNothing,
    allToAllVariable: carriesNothing,
    broadcast: carriesNothing,
    send: carriesNothing,
    receive: carriesNothing,
    barrier: async () => {},
    // Ranks of a plan are alike: what one says, all say.
    exchange: async (bytes) => members.map(() => bytes),
    subgroup: async (subgroup, ranks) =>
      plannedGroup(
        subgroup,
        ranks.map((rank) => members[rank]!),
        worldRank,
      ),
    abort: () => {},
    setMoment: () => {},
    traffic: () => ({ bytes: 0, seconds: 0 }),
    native: undefined,
    close: () => {},
  };
}
