import { sameShape } from "../../base/shape.ts";
import { usesOf } from "../../compiler/passes/rewrite.ts";
import { dtypeOf, type Graph, type GraphOutput, type Node, shapeOf, type Value } from "../../graph/graph.ts";

/** A result of a graph as the terms of a sum, which may be made in different places. */
export interface SummedOutput {
  readonly output: GraphOutput;
  readonly terms: readonly Value[];
}

/** The results that go to a leaf as the terms of their sums; all others as they are. */
export function termsOfOutputs(graph: Graph): SummedOutput[] {
  const uses = usesOf(graph);
  const terms = (value: Value): Value[] => {
    const { node } = value;
    if (node.op !== "elementwise" || uses.count(value) !== 1) return [value];
    const { attributes, inputs } = node as Node<"elementwise">;
    const wholes = inputs.every(
      (input) => sameShape(shapeOf(input), shapeOf(value)) && dtypeOf(input) === dtypeOf(value),
    );
    return attributes.operation === "add" && wholes ? inputs.flatMap(terms) : [value];
  };
  return graph.outputs.map((output) => ({
    output,
    terms: output.target === undefined ? [output.value] : terms(output.value),
  }));
}
