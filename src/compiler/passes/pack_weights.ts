import { type DType, isFloat } from "../../base/dtype.ts";
import { sameShape } from "../../base/shape.ts";
import { apply, dtypeOf, type Graph, isLeaf, type Node, shapeOf, type Value } from "../../graph/graph.ts";
import { rewrite } from "./rewrite.ts";

type Elements = "f32" | "bf16";

/** The operand of a node that does nothing but change the dtype. */
function castOperand(value: Value): Value | undefined {
  const { node } = value;
  if (node.op === "cast") return node.inputs[0]!;
  if (node.op !== "map" || node.inputs.length !== 1) return undefined;
  const { expression } = (node as Node<"map">).attributes;
  const plain = expression.instructions.length === 0 && sameShape(shapeOf(node.inputs[0]!), shapeOf(value));
  return plain ? node.inputs[0]! : undefined;
}

function isParameter(value: Value): boolean {
  return isLeaf(value) && value.node.attributes.kind === "parameter";
}

/**
 * What to pack for a product with `value`: the parameter itself, also behind a cast that rounds as packing does
 * or not at all. Undefined where no parameter is behind it.
 */
function packedSource(value: Value, elements: Elements): Value | undefined {
  if (isParameter(value)) return value;
  const source = castOperand(value);
  if (source === undefined || !isParameter(source)) return undefined;
  const to: DType = dtypeOf(value);
  const harmless = to === elements || (to === "f32" && dtypeOf(source) !== "f64");
  return harmless && isFloat(dtypeOf(source)) ? source : value;
}

/**
 * Replaces products with a parameter by products with its packed panels. The packing depends on the
 * parameter alone, so the planner does it once, not once a run.
 */
export function packWeights(graph: Graph): Graph {
  return rewrite(graph, (node, inputs) => {
    if (node.op !== "matmul" || node.attributes.transposeA) return undefined;
    const [a, b, ...extra] = inputs as [Value, Value, ...Value[]];
    const elements: Elements = dtypeOf(a) === "bf16" ? "bf16" : "f32";
    const source = packedSource(b, elements);
    if (source === undefined || shapeOf(b).length !== 2) return undefined;
    const { transposeB, activation, bias, residual, dtype } = node.attributes;
    const columns = shapeOf(b)[transposeB ? 0 : 1];
    if (typeof columns !== "number") return undefined;
    const packed = apply("pack_matrix", [source], { transposeB, elements });
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
