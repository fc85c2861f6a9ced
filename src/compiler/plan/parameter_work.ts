import { type AnyNode, type Graph, isLeaf, type Node } from "../../graph/graph.ts";
import { inPlaceOutputs, isCollective } from "../../graph/ops.ts";
import { isView, rootOf } from "./storage.ts";

/**
 * The nodes that depend on parameters and on nothing that changes from run to run: their steps run once,
 * until parameters change. Parameters that the graph itself overwrites do change from run to run, and so does
 * what has a symbolic size.
 */
export function parameterWork(graph: Graph): Set<Node> {
  const written = writtenMemory(graph);
  const fixed = new Set<Node>();
  const prepared = new Set<Node>();
  for (const node of graph.nodes) {
    if (node.op === "leaf") {
      if (node.attributes.kind === "parameter" && !written.has(node)) prepared.add(node);
      continue;
    }
    if (!isRepeatable(node) || written.has(node)) continue;
    const settled = node.inputs.every((input) => fixed.has(input.node) || prepared.has(input.node));
    if (!settled) continue;
    if (node.inputs.some((input) => prepared.has(input.node))) prepared.add(node);
    else fixed.add(node);
  }
  // A fixed operand of prepared work is prepared with it.
  for (const node of graph.nodes.toReversed()) {
    if (!prepared.has(node)) continue;
    for (const input of node.inputs) if (fixed.has(input.node)) prepared.add(input.node);
  }
  return prepared;
}

/** Whether a node gives the same result whenever its operands are the same, at every value of the symbols. */
function isRepeatable(node: AnyNode): boolean {
  if (node.op === "random" || inPlaceOutputs[node.op] !== undefined) return false;
  // What ranks gather is given up again after its use: keeping it is what partitioning avoids.
  if (isCollective(node.op) && !isView(node)) return false;
  return node.outputs.every(({ shape }) => shape.every((dimension) => typeof dimension === "number"));
}

/** The nodes whose memory is written after they made it: targets of outputs, and what ops update in place. */
function writtenMemory(graph: Graph): Set<Node> {
  const written = new Set<Node>();
  for (const { value, target } of graph.outputs) {
    if (target !== undefined && !(isLeaf(value) && value.node === target.node)) written.add(target.node);
  }
  for (const node of graph.nodes) {
    for (const [, input] of inPlaceOutputs[node.op] ?? []) written.add(rootOf(node.inputs[input]!).node);
  }
  return written;
}
