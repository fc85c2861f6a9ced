import { type AnyNode, createNode, type Graph, type Node, type Value } from "../../graph/graph.ts";
import type { QuantizedColumns } from "../../graph/ops.ts";
import { rewrite } from "./rewrite.ts";

/** The most products that become one; the kernel takes as many (native/kernels/quantized/matmul.h). */
const mostJoined = 8;

/** Products with one key can share a call. */
function keyOf(node: Node<"matmul_quantized">): string | undefined {
  const { weights, activation, bias, residual, dtype } = node.attributes;
  if (weights.length !== 1 || residual) return undefined;
  // What comes from other nodes might depend on the first of the products.
  if (!node.inputs.slice(3).every((input) => isFixed(input))) return undefined;
  const values = node.inputs[0]!;
  return `${values.node.id} ${activation} ${bias} ${dtype} ${node.recomputed ?? ""}`;
}

function isFixed({ node }: Value): boolean {
  return node.op === "leaf" || node.op === "constant" || (node.op === "cast" && isFixed(node.inputs[0]!));
}

/**
 * Joins quantized products of the same rows (queries, keys and values; gates and ups) into one call each, so that
 * threads share out one long stream of weights and are woken once.
 */
export function joinProducts(graph: Graph): Graph {
  const groups = new Map<string, Node<"matmul_quantized">[]>();
  const groupOf = new Map<Node, Node<"matmul_quantized">[]>();
  for (const node of graph.nodes) {
    if (node.op !== "matmul_quantized") continue;
    const key = keyOf(node);
    if (key === undefined) continue;
    let group = groups.get(key);
    if (group === undefined || group.length === mostJoined) {
      group = [];
      groups.set(key, group);
    }
    group.push(node);
    groupOf.set(node, group);
  }
  const joined = new Map<Node<"matmul_quantized">[], Node<"matmul_quantized">>();
  return rewrite(graph, (node: AnyNode, inputs) => {
    const group = groupOf.get(node);
    if (node.op !== "matmul_quantized" || group === undefined || group.length === 1) return undefined;
    let call = joined.get(group);
    if (call === undefined) {
      const weights = group.map((product): QuantizedColumns => product.attributes.weights[0]!);
      const operands = [
        ...inputs.slice(0, 3),
        ...group.map((product) => product.inputs[3]!),
        ...(node.attributes.bias ? group.map((product) => product.inputs[4]!) : []),
      ];
      call = createNode("matmul_quantized", operands, { ...node.attributes, weights }, node);
      joined.set(group, call);
    }
    return [{ node: call, index: group.indexOf(node) }];
  });
}
