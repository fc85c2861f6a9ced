import { sameShape } from "../../base/shape.ts";
import { dtypeOf, type Graph, type GraphOutput, type Node, shapeOf, type Value } from "../../graph/graph.ts";
import { keyOf, rootOf } from "../plan/storage.ts";
import { usesOf } from "./rewrite.ts";

/**
 * Stores the terms of a sum one after another where the sum goes to a leaf: each term is then added to the
 * leaf's memory by the kernel that makes it. A tied embedding's gradient is such a sum.
 */
export function splitStoredSums(graph: Graph): Graph {
  const uses = usesOf(graph);
  const position = new Map<Node, number>(graph.nodes.map((node, index) => [node, index]));
  const terms = (value: Value): Value[] => {
    const { node } = value;
    if (node.op !== "elementwise" || uses.count(value) !== 1) return [value];
    const { attributes, inputs } = node as Node<"elementwise">;
    const wholes = inputs.every(
      (input) => sameShape(shapeOf(input), shapeOf(value)) && dtypeOf(input) === dtypeOf(value),
    );
    return attributes.operation === "add" && wholes ? inputs.flatMap(terms) : [value];
  };
  const outputs = graph.outputs.flatMap((output): GraphOutput[] => {
    const { target } = output;
    // 16-bit memory would round after every term.
    if (target === undefined || dtypeOf(target) !== "f32") return [output];
    // What the leaf held before comes first: it is already there.
    const held = (value: Value): boolean => keyOf(rootOf(value)) === keyOf(target);
    const place = (value: Value): number => (held(value) ? -1 : position.get(value.node)!);
    const ordered = terms(output.value).sort((a, b) => place(a) - place(b));
    return ordered.map((value, index) => ({
      ...output,
      value,
      accumulate: index > 0 || output.accumulate === true,
    }));
  });
  return { ...graph, outputs };
}
