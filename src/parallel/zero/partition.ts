import { elementCount } from "../../base/shape.ts";
import type { RankGroup } from "../../graph/ops.ts";
import type { LocalParameter } from "../local_parameter.ts";
import type { Mesh } from "../mesh.ts";
import type { ZeroSettings } from "./settings.ts";
import { type SplitGroup, splitGroup } from "./subgroups.ts";

/** How much of something a rank keeps. */
export type Share = "whole" | "part";

/**
 * How one parameter is divided among the ranks of its group: the rank's box, flattened and padded, in as many equal
 * parts as the group has ranks. Rank r owns part r: it alone updates it.
 */
export interface PartitionedParameter {
  readonly local: LocalParameter;
  /** The ranks that it is divided among, and that its gradient is summed over. */
  readonly group: RankGroup;
  /** The ranks that keep the same part in other divisions of the same kind, over which its gradient is summed too. */
  readonly replicas: RankGroup | undefined;
  /** The ranks that keep what was gathered for the forward pass among them until the backward pass. */
  readonly secondary: RankGroup | undefined;
  /** Elements of the rank's box, those with padding, and those of one part. */
  readonly elements: number;
  readonly padded: number;
  readonly part: number;
  /** Whether it is updated; without, it has neither gradient nor states. */
  readonly trained: boolean;
  /** What this rank keeps of the parameter, its gradient and its optimizer states. */
  readonly parameter: Share;
  readonly gradient: Share;
  readonly states: Share;
}

/** Parts start on whole cache lines. */
const alignment = 16;
/** Parts of large parameters are whole blocks of a disk, in f32 and in bf16. */
const largeAlignment = 2048;
const largePart = 2 ** 16;

/** Divides a rank's parameters among the ranks that hold the same ones. */
export function partitionParameters(
  locals: readonly LocalParameter[],
  mesh: Mesh,
  settings: Pick<ZeroSettings, "stage" | "persistenceThreshold" | "shardSize" | "secondarySize">,
  isFrozen: (name: string) => boolean,
): PartitionedParameter[] {
  const { stage, persistenceThreshold, shardSize, secondarySize } = settings;
  return locals.map((local) => {
    const everyone = mesh.groupOf(local.reducedOver.filter((axis) => mesh.sizes[axis] > 1));
    const shards = splitOf(everyone, shardSize);
    const group = shards?.run ?? everyone;
    const elements = elementCount(local.box.sizes);
    const unit = (elements >= largePart * group.size ? largeAlignment : alignment) * group.size;
    const padded = Math.ceil(elements / unit) * unit;
    const shareFrom = (first: number): Share => (stage >= first && group.size > 1 ? "part" : "whole");
    return {
      local,
      group,
      replicas: shards?.across,
      secondary: splitOf(group, secondarySize)?.run,
      elements,
      padded,
      part: padded / group.size,
      trained: !isFrozen(local.name),
      parameter: elements <= persistenceThreshold ? "whole" : shareFrom(3),
      gradient: shareFrom(2),
      states: shareFrom(1),
    };
  });
}

/** Undefined where nothing is to be cut: the parts would be the whole group. */
function splitOf(group: RankGroup, size: number | undefined): SplitGroup | undefined {
  return size === undefined || size < 1 || size >= group.size ? undefined : splitGroup(group, size);
}

/** Whether other ranks compute other terms of a parameter's gradient. */
export function isShared({ group, replicas }: PartitionedParameter): boolean {
  return group.size > 1 || replicas !== undefined;
}

/** Whether this rank is the first of those that keep the same part. */
export function isFirstReplica({ replicas }: PartitionedParameter): boolean {
  return replicas === undefined || replicas.rank === 0;
}

/** Elements that a rank keeps of a share. */
export function keptElements({ padded, part }: PartitionedParameter, share: Share): number {
  return share === "part" ? part : padded;
}

/** First element of the rank's own part within what it keeps. */
export function ownStart({ group, part }: PartitionedParameter, share: Share): number {
  return share === "part" ? 0 : group.rank * part;
}

/** The elements of the flattened box that a share holds, padding left out: `[start, end)`. */
export function keptRange(parameter: PartitionedParameter, share: Share): { start: number; end: number } {
  const { elements, part, group } = parameter;
  if (share === "whole") return { start: 0, end: elements };
  const start = Math.min(elements, group.rank * part);
  return { start, end: Math.min(elements, start + part) };
}
