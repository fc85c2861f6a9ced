import { type Graph, type Node, sameValue } from "../../graph/graph.ts";
import { rewrite } from "./rewrite.ts";

/**
 * Where a graph holds both the loss over a projection and its gradient, takes the losses from the gradient,
 * which computes them on its way: the logits are then computed once instead of twice.
 */
export function fuseLossIntoGradient(graph: Graph): Graph {
  const gradientNodes = graph.nodes.filter((node) => node.op === "linear_cross_entropy_gradient");
  if (gradientNodes.length === 0) return graph;
  // The rewrite runs the gradient where the loss ran, before the readers of the loss.
  const replacement = new Map<Node, Node>();
  for (const loss of graph.nodes) {
    if (loss.op !== "linear_cross_entropy") continue;
    const gradient = gradientNodes.find((candidate) =>
      loss.inputs.every((input, index) => sameValue(input, candidate.inputs[index + 1]!)),
    );
    if (gradient !== undefined && !dependentsOf(loss, graph).has(gradient)) replacement.set(loss, gradient);
  }
  return rewrite(graph, (node) => {
    const gradient = replacement.get(node);
    return gradient === undefined ? undefined : [{ node: gradient, index: 0 }];
  });
}

/** The nodes whose results depend on a node's. */
function dependentsOf(node: Node, graph: Graph): Set<Node> {
  const dependents = new Set<Node>([node]);
  for (const candidate of graph.nodes) {
    if (candidate.inputs.some((input) => dependents.has(input.node))) dependents.add(candidate);
  }
  return dependents;
}
