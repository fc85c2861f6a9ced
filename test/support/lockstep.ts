import { Mesh, type MeshSizes } from "../../src/parallel/mesh.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";
import { createReferenceBackend } from "../../src/runtime/reference/backend.ts";
import { joinMesh, type Rank } from "../../src/train/rank.ts";

/** A rank and a backend that computes in float64 with the other ranks of its world. */
export interface LockstepRank {
  readonly rank: Rank;
  readonly backend: Backend;
}

/** Where the members of one group meet: the k-th call of each with those of the others. */
class Meeting {
  readonly #size: number;
  readonly #calls: { items: unknown[]; resolve: ((items: unknown[]) => void)[] }[] = [];
  readonly #next: number[];

  constructor(size: number) {
    this.#size = size;
    this.#next = Array.from({ length: size }, () => 0);
  }

  async meet(rank: number, item: unknown): Promise<unknown[]> {
    const index = this.#next[rank]!++;
    this.#calls[index] ??= { items: [], resolve: [] };
    const call = this.#calls[index];
    call.items[rank] = item;
    return await new Promise((resolve) => {
      call.resolve.push(resolve);
      if (call.resolve.length === this.#size) for (const settle of call.resolve) settle(call.items);
    });
  }
}

/** Ranks of one process whose collectives are evaluated by their reference rules. */
export async function lockstepWorld(sizes: Partial<MeshSizes>): Promise<LockstepRank[]> {
  const size = new Mesh(sizes, 0).worldSize;
  const meetings = new Map<string, Meeting>();
  const groupOf = (
    name: string,
    members: readonly number[],
    world: number,
  ): ProcessGroup & { meeting: Meeting } => {
    const key = `${name}:${members.join()}`;
    const meeting = meetings.get(key) ?? new Meeting(members.length);
    meetings.set(key, meeting);
    const rank = members.indexOf(world);
    return {
      name,
      members,
      size: members.length,
      rank,
      meeting,
      exchange: (bytes: Uint8Array) => meeting.meet(rank, bytes.slice()),
      subgroup: async (part: string, places: readonly number[]) => groupOf(part, places, world),
      abort: () => {},
    } as unknown as ProcessGroup & { meeting: Meeting };
  };
  const everyone = Array.from({ length: size }, (_, rank) => rank);
  return await Promise.all(
    everyone.map(async (number) => {
      const rank = await joinMesh(groupOf("world", everyone, number), new Mesh(sizes, number));
      return { rank, backend: createReferenceBackend() };
    }),
  );
}
