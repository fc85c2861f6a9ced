import { add } from "../../graph/build.ts";
import { createNode, type Value } from "../../graph/graph.ts";
import type { RankGroup } from "../../graph/ops.ts";

/** The rings around which a rank passes what it holds. */
export interface Rings {
  readonly inner: RankGroup;
  readonly outer: RankGroup;
}

/** What to do with what came from another rank: `context` is its number, outer rank x inner ranks + inner rank. */
export type Visit<Result> = (values: readonly Value[], context: number) => Result;

/**
 * Copies of what the forward pass passed around would be merged with it and keep all of it in memory: what the backward
 * pass passes around is marked as recomputed.
 */
const again = -1;

/** Whose values arrive after so many steps on each ring. */
function contextAt({ inner, outer }: Rings, outerStep: number, innerStep: number): number {
  const outerRank = (outer.rank - outerStep + outer.size) % outer.size;
  return outerRank * inner.size + ((inner.rank - innerStep + inner.size) % inner.size);
}

function send(values: readonly Value[], group: RankGroup, recomputed?: number): readonly Value[] {
  const node = createNode("permute", values, { group, offset: 1 }, { recomputed });
  return values.map((_, index) => ({ node, index }));
}

/** Sends on what there is to send, before the work that hides it is recorded. */
function sendUnlessLast(
  values: readonly Value[],
  group: RankGroup,
  step: number,
  recomputed?: number,
): readonly Value[] | undefined {
  return step + 1 < group.size ? send(values, group, recomputed) : undefined;
}

function added(arrived: readonly Value[] | undefined, own: readonly Value[]): readonly Value[] {
  return arrived === undefined ? own : own.map((value, index) => add(arrived[index]!, value));
}

/**
 * Passes values around: every rank visits those of all ranks, its own first. While it works on some, the next ones
 * travel: around the inner ring, and at the same time, for a whole round of it, around the outer one.
 */
export function passAround(rings: Rings, start: readonly Value[], visit: Visit<void>): void {
  const { inner, outer } = rings;
  let round: readonly Value[] | undefined = start;
  for (let outerStep = 0; round !== undefined; outerStep++) {
    const next = sendUnlessLast(round, outer, outerStep);
    let values: readonly Value[] | undefined = round;
    for (let innerStep = 0; values !== undefined; innerStep++) {
      const following = sendUnlessLast(values, inner, innerStep);
      visit(values, contextAt(rings, outerStep, innerStep));
      values = following;
    }
    round = next;
  }
}

/**
 * Passes values around together with sums to which every rank adds; they arrive where the values came from, and are
 * given back. A rank visits its own values last: so the sums need one step less, and travel while it does.
 */
export function passAroundSums(
  rings: Rings,
  start: readonly Value[],
  visit: Visit<readonly Value[]>,
): readonly Value[] {
  const { inner, outer } = rings;
  return aroundOne(outer, start, (round, outerStep) =>
    aroundOne(inner, round, (values, innerStep) => visit(values, contextAt(rings, outerStep, innerStep))),
  );
}

/** The same around one ring: `visit` gets the number of steps that values have come. */
function aroundOne(
  ring: RankGroup,
  start: readonly Value[],
  visit: (values: readonly Value[], step: number) => readonly Value[],
): readonly Value[] {
  let arrived: readonly Value[] | undefined;
  let next = sendUnlessLast(start, ring, 0, again);
  for (let step = 1; next !== undefined; step++) {
    const values: readonly Value[] = next;
    next = sendUnlessLast(values, ring, step, again);
    arrived = send(added(arrived, visit(values, step)), ring, again);
  }
  return added(arrived, visit(start, 0));
}
