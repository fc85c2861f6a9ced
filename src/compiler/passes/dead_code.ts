import type { Graph, Node } from "../../graph/graph.ts";

/** Drops nodes that no output needs. */
export function removeDeadCode(graph: Graph): Graph {
  const needed = new Set<Node>();
  for (const output of graph.outputs) {
    needed.add(output.value.node);
    if (output.target !== undefined) needed.add(output.target.node);
  }
  for (const node of [...graph.nodes].reverse()) {
    if (needed.has(node)) for (const input of node.inputs) needed.add(input.node);
  }
  return { ...graph, nodes: graph.nodes.filter((node) => needed.has(node)) };
}
