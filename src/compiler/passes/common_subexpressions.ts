import { type AnyNode, type Graph, type Node, type Value, withInputs } from "../../graph/graph.ts";
import { inPlaceOutputs } from "../../graph/ops.ts";
import { rewrite } from "./rewrite.ts";

const dataIds = new WeakMap<object, number>();
let nextDataId = 0;

function dataId(data: object): number {
  let id = dataIds.get(data);
  if (id === undefined) {
    id = nextDataId++;
    dataIds.set(data, id);
  }
  return id;
}

function keyOf(node: AnyNode, inputs: readonly Value[]): string {
  const attributes = JSON.stringify(node.attributes, (_name, value: unknown) =>
    ArrayBuffer.isView(value) ? `data ${dataId(value)}` : value,
  );
  const operands = inputs.map((input) => `${input.node.id}.${input.index}`).join();
  return `${node.op}|${operands}|${attributes}|${node.recomputed ?? ""}`;
}

/**
 * Merges nodes that compute the same thing. Copies made for recomputation stay apart from their originals,
 * and updates in place are never merged.
 */
export function mergeCommonSubexpressions(graph: Graph): Graph {
  const known = new Map<string, Node>();
  return rewrite(graph, (node, inputs) => {
    if (node.op === "leaf" || inPlaceOutputs[node.op] !== undefined) return undefined;
    const key = keyOf(node, inputs);
    const present = known.get(key);
    if (present !== undefined) return node.outputs.map((_, index) => ({ node: present, index }));
    const kept: Node = withInputs(node, inputs);
    known.set(key, kept);
    return kept.outputs.map((_, index) => ({ node: kept, index }));
  });
}
