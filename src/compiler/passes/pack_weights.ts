import { apply, type Graph, isLeaf, shapeOf, type Value } from "../../graph/graph.ts";
import { rewrite } from "./rewrite.ts";

/** The parameter behind a value: the leaf itself, or the leaf that was cast to another dtype. */
function parameterBehind(value: Value): Value<"leaf"> | undefined {
  const source = value.node.op === "cast" || value.node.op === "map" ? value.node.inputs[0]! : value;
  if (value.node.op === "map" && !isPlainCast(value)) return undefined;
  return isLeaf(source) && source.node.attributes.kind === "parameter" ? source : undefined;
}

function isPlainCast(value: Value): boolean {
  const { node } = value;
  return (
    node.op === "map" &&
    "expression" in node.attributes &&
    node.attributes.expression.instructions.length === 0
  );
}

/**
 * Replaces products with a parameter by products with its packed panels. The packing depends on the
 * parameter alone, so the planner does it once, not once a run.
 */
export function packWeights(graph: Graph): Graph {
  return rewrite(graph, (node, inputs) => {
    if (node.op !== "matmul" || node.attributes.transposeA) return undefined;
    const [a, b, ...extra] = inputs as [Value, Value, ...Value[]];
    const parameter = parameterBehind(b);
    if (parameter === undefined || shapeOf(b).length !== 2) return undefined;
    const { transposeB, activation, bias, residual, dtype } = node.attributes;
    const elements = a.node.outputs[a.index]!.dtype === "bf16" ? "bf16" : "f32";
    const columns = shapeOf(b)[transposeB ? 0 : 1];
    if (typeof columns !== "number") return undefined;
    const packed = apply("pack_matrix", [parameter], { transposeB, elements });
    return [
      apply(
        "matmul_packed",
        [a, packed, ...extra],
        { columns, elements, activation, bias, residual, dtype },
        node,
      ),
    ];
  });
}
