import type { RankGroup } from "../../graph/ops.ts";
import type { Mesh } from "../mesh.ts";

/**
 * The ranks of the sequence axis as a grid: `head` of them split the heads of the same tokens, `outer` x `inner` pass
 * keys and values around, in rings of `inner` ranks that exchange `outer` times (Fang and Zhao, "USP", arXiv
 * 2405.07719; Gu et al., "LoongTrain", arXiv 2406.18485).
 */
export interface SequenceGrid {
  readonly head: number;
  readonly outer: number;
  readonly inner: number;
  /** Which of the two dimensions has neighbouring ranks. */
  readonly placement: "head_first" | "context_first";
}

/** A rank's place on the grid. */
export interface GridPlace {
  readonly head: number;
  readonly outer: number;
  readonly inner: number;
}

/** The dimensions of the grid along which ranks talk. */
export const gridDimensions = ["head", "outer", "inner"] as const;
export type GridDimension = (typeof gridDimensions)[number];

/** A group along one dimension of the grid, and the ranks of the world in it, ascending. */
export interface GridGroup {
  readonly group: RankGroup;
  readonly members: readonly number[];
}

/** The place on the grid of rank `index` of the sequence axis. */
export function gridPlace({ head, outer, inner, placement }: SequenceGrid, index: number): GridPlace {
  const context = outer * inner;
  const headFirst = placement === "head_first";
  const ring = headFirst ? Math.floor(index / head) : index % context;
  return {
    head: headFirst ? index % head : Math.floor(index / context),
    outer: Math.floor(ring / inner),
    inner: ring % inner,
  };
}

/** The rank of the sequence axis at a place on the grid. */
export function sequenceIndex({ head, outer, inner, placement }: SequenceGrid, place: GridPlace): number {
  const ring = place.outer * inner + place.inner;
  return placement === "head_first" ? ring * head + place.head : place.head * outer * inner + ring;
}

/**
 * This rank's group along each dimension of the grid that has several ranks. A group of the whole axis is "sequence",
 * others are named "sequence.head", "sequence.outer" and "sequence.inner".
 */
export function gridGroups(mesh: Mesh, grid: SequenceGrid): ReadonlyMap<GridDimension, GridGroup> {
  const ranks = mesh.membersOf(["sequence"]);
  const own = gridPlace(grid, mesh.place.sequence);
  const groups = new Map<GridDimension, GridGroup>();
  for (const dimension of gridDimensions) {
    const size = grid[dimension];
    if (size === 1) continue;
    const members = Array.from({ length: size }, (_, index) => {
      return ranks[sequenceIndex(grid, { ...own, [dimension]: index })]!;
    });
    const axes = size === ranks.length ? "sequence" : `sequence.${dimension}`;
    groups.set(dimension, { group: { axes, size, rank: own[dimension] }, members });
  }
  return groups;
}
