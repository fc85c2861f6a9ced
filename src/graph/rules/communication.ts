import { bytesPerElement } from "../../base/dtype.ts";
import { boundShape, elementCount, resolveShape, type SymbolValues } from "../../base/shape.ts";
import { type AnyNode, typeOf, type Value } from "../graph.ts";
import { isCollective } from "../ops.ts";

/** What passes between the ranks of a group for one node. */
export interface Communication {
  /** The axes of the group. */
  readonly axes: string;
  /** Bytes that each rank sends. */
  readonly bytes: number;
  /** Messages one after another, each of which pays the link's latency. */
  readonly messages: number;
}

/**
 * What a rank sends for a node, by the algorithms of bandwidth-optimal rings (Patarasuk and Yuan, "Bandwidth
 * Optimal All-reduce Algorithms for Clusters of Workstations", JPDC 2009); undefined for ops of one rank.
 */
export function communicationOf(node: AnyNode, symbols?: SymbolValues): Communication | undefined {
  if (!isCollective(node.op)) return undefined;
  const { group } = node.attributes as { group: { axes: string; size: number } };
  const { axes, size } = group;
  const bytesOf = (value: Value): number => {
    const { shape, dtype } = typeOf(value);
    const concrete = symbols === undefined ? boundShape(shape) : resolveShape(shape, symbols);
    return elementCount(concrete) * bytesPerElement(dtype);
  };
  const input = node.inputs.reduce((sum, value) => sum + bytesOf(value), 0);
  const part = (size - 1) / size;
  switch (node.op) {
    case "all_reduce":
      return { axes, bytes: 2 * part * input, messages: 2 * (size - 1) };
    case "reduce_scatter":
    case "all_to_all":
      return { axes, bytes: part * input, messages: size - 1 };
    case "all_gather":
      return { axes, bytes: (size - 1) * input, messages: size - 1 };
    case "permute":
      return { axes, bytes: node.attributes.offset % size === 0 ? 0 : input, messages: 1 };
  }
}
