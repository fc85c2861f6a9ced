import { moveAnnotation } from "../../graph/annotations.ts";
import type { AnyNode, Graph, GraphOutput, Node, Value } from "../../graph/graph.ts";
import { buildGraph, withInputs } from "../../graph/graph.ts";
import { inScope } from "../../graph/scope.ts";

/** What becomes of a node whose operands in the new graph are `inputs`; undefined to keep it as it is. */
export type MapNode = (node: AnyNode, inputs: readonly Value[]) => readonly Value[] | undefined;

/** Rebuilds a graph node by node, leaves and targets included; annotations stay with the nodes. */
export function mapGraph(graph: Graph, map: MapNode): Graph {
  const mapped = new Map<Node, readonly Value[]>();
  const lookUp = (value: Value): Value => mapped.get(value.node)?.[value.index] ?? value;
  const visit = (node: AnyNode): void => {
    const inputs = node.inputs.map(lookUp);
    const results = inScope(node.scope, () => map(node, inputs));
    const kept = results === undefined ? withInputs(node, inputs) : undefined;
    const values = results ?? node.outputs.map((_, index): Value => ({ node: kept as Node, index }));
    mapped.set(node, values);
    if (values[0]!.node !== node) moveAnnotation(node, values[0]!.node);
  };
  for (const node of graph.nodes) visit(node);
  const outputs = graph.outputs.map((output): GraphOutput => {
    const value = lookUp(output.value);
    if (output.target === undefined) return { ...output, value };
    return { ...output, value, target: lookUp(output.target) as Value<"leaf"> };
  });
  return buildGraph(graph.name, outputs);
}
