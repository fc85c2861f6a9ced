import { InternalError } from "../base/errors.ts";
import type { RankGroup } from "../graph/ops.ts";
import type { ProcessGroup } from "./group.ts";

/**
 * The process groups of a program's collectives, in order.
 * @throws InternalError naming the group that is missing or that this rank is otherwise in.
 */
export function collectGroups(
  program: string,
  groups: readonly RankGroup[],
  given: ReadonlyMap<string, ProcessGroup> = new Map(),
): ProcessGroup[] {
  return groups.map(({ axes, size, rank }) => {
    const where = `program ${program}`;
    const group = given.get(axes);
    if (group === undefined) {
      throw new InternalError(`no process group is given for collectives over "${axes}"`, {
        where,
        expected: `a group of ${size} ranks under "${axes}" in CompileOptions.groups`,
        received: given.size === 0 ? "no groups" : `groups ${[...given.keys()].join(", ")}`,
      });
    }
    if (group.size !== size || group.rank !== rank) {
      throw new InternalError(`the process group given for "${axes}" is another than the program's`, {
        where,
        expected: `rank ${rank} of ${size}`,
        received: `rank ${group.rank} of ${group.size} (group ${group.name})`,
      });
    }
    return group;
  });
}
