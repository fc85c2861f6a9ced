import { type AnyNode, type Graph, type Node, type Value, withInputs } from "../../graph/graph.ts";
import { inPlaceOutputs } from "../../graph/ops.ts";
import { rootOf } from "../plan/storage.ts";
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

/** Attributes as text that differs wherever they do: JSON alone has no -0, infinities or NaN. */
function attributesKey(attributes: object): string {
  return JSON.stringify(attributes, (_name, value: unknown) => {
    if (ArrayBuffer.isView(value)) return `data ${dataId(value)}`;
    if (typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0))) {
      return Object.is(value, -0) ? "number -0" : `number ${value}`;
    }
    return value;
  });
}

function keyOf(node: AnyNode, inputs: readonly Value[]): string {
  const operands = inputs.map((input) => `${input.node.id}.${input.index}`).join();
  return `${node.op}|${operands}|${attributesKey(node.attributes)}|${node.recomputed ?? ""}`;
}

/**
 * Merges nodes that compute the same thing. Copies made for recomputation stay apart from their originals,
 * and updates in place are never merged, nor is what they update.
 */
export function mergeCommonSubexpressions(graph: Graph): Graph {
  const overwritten = new Set<Node>();
  for (const node of graph.nodes) {
    for (const [, input] of inPlaceOutputs[node.op] ?? []) overwritten.add(rootOf(node.inputs[input]!).node);
  }
  const known = new Map<string, Node>();
  return rewrite(graph, (node, inputs) => {
    if (node.op === "leaf" || inPlaceOutputs[node.op] !== undefined || overwritten.has(node))
      return undefined;
    const key = keyOf(node, inputs);
    const present = known.get(key);
    if (present !== undefined) return node.outputs.map((_, index) => ({ node: present, index }));
    const kept: Node = withInputs(node, inputs);
    known.set(key, kept);
    return kept.outputs.map((_, index) => ({ node: kept, index }));
  });
}
