import { ConfigError } from "../base/errors.ts";
import type { RankGroup } from "../graph/ops.ts";

/**
 * The named axes of a mesh, outermost first: ranks that differ in the last axis alone are neighbours. Those that talk
 * most are innermost, where links are fastest (Shoeybi et al., "Megatron-LM", arXiv 1909.08053).
 */
export const meshAxes = ["pipeline", "data", "expert", "sequence", "tensor"] as const;
export type MeshAxis = (typeof meshAxes)[number];

/** How many ranks each axis has. */
export type MeshSizes = Readonly<Record<MeshAxis, number>>;

/** A rank's place on each axis. */
export type MeshPlace = Readonly<Record<MeshAxis, number>>;

/** All ranks of a run as a grid, and one rank's place in it. */
export class Mesh {
  readonly sizes: MeshSizes;
  /** This rank in the world. */
  readonly rank: number;
  readonly place: MeshPlace;

  /** @param sizes axes that are left out have one rank. */
  constructor(sizes: Partial<MeshSizes>, rank: number) {
    this.sizes = { pipeline: 1, data: 1, expert: 1, sequence: 1, tensor: 1, ...sizes };
    this.rank = rank;
    this.place = this.placeOf(rank);
  }

  /** Ranks of the whole mesh. */
  get worldSize(): number {
    return meshAxes.reduce((product, axis) => product * this.sizes[axis], 1);
  }

  /** The place of a rank of the world. */
  placeOf(rank: number): MeshPlace {
    const place = { pipeline: 0, data: 0, expert: 0, sequence: 0, tensor: 0 };
    let rest = rank;
    for (const axis of meshAxes.toReversed()) {
      place[axis] = rest % this.sizes[axis];
      rest = Math.floor(rest / this.sizes[axis]);
    }
    return place;
  }

  /** The rank of the world at a place. */
  rankAt(place: MeshPlace): number {
    return meshAxes.reduce((rank, axis) => rank * this.sizes[axis] + place[axis], 0);
  }

  /** The ranks of the world that differ from this one in these axes alone, ascending, itself included. */
  membersOf(axes: readonly MeshAxis[]): number[] {
    const members: number[] = [];
    for (let rank = 0; rank < this.worldSize; rank++) {
      const place = this.placeOf(rank);
      if (meshAxes.every((axis) => axes.includes(axis) || place[axis] === this.place[axis]))
        members.push(rank);
    }
    return members;
  }

  /** The group over these axes as programs name it. */
  groupOf(axes: readonly MeshAxis[]): RankGroup {
    const members = this.membersOf(axes);
    return { axes: groupName(axes), size: members.length, rank: members.indexOf(this.rank) };
  }
}

/** What a group over these axes is called: their names in the order of the mesh, such as "data+sequence". */
export function groupName(axes: readonly MeshAxis[]): string {
  return meshAxes.filter((axis) => axes.includes(axis)).join("+");
}

/** @throws ConfigError where the axes do not multiply to the number of ranks, with what would. */
export function requireMesh(sizes: MeshSizes, worldSize: number): void {
  const product = meshAxes.reduce((total, axis) => total * sizes[axis], 1);
  if (product === worldSize) return;
  const named = meshAxes.filter((axis) => sizes[axis] > 1).map((axis) => `${axis} ${sizes[axis]}`);
  const others = product / sizes.data;
  const fits = Number.isInteger(worldSize / others);
  throw new ConfigError("bad_mesh", "the axes of the mesh do not multiply to the number of ranks", {
    where: "parallel",
    expected: `${worldSize} ranks`,
    received: `${named.length === 0 ? "axes of one rank" : named.join(" x ")} = ${product}`,
    hint: fits ? `set parallel.data to ${worldSize / others}, or leave it out` : `start ${product} ranks`,
  });
}
