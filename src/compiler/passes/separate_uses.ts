import type { DType } from "../../base/dtype.ts";
import {
  type AnyNode,
  apply,
  createNode,
  dtypeOf,
  type Graph,
  type GraphOutput,
  type Node,
  type Value,
} from "../../graph/graph.ts";
import type { OpName } from "../../graph/ops.ts";
import type { Scope } from "../../graph/scope.ts";
import { parameterWork } from "../plan/parameter_work.ts";
import { rewrite } from "./rewrite.ts";

/** What the leaf is called through which the backward pass reads a parameter that lies in a store. */
export function backwardUse(parameter: string): string {
  return `${parameter} (backward)`;
}

/** Ops that read weights of any float dtype and round them to that of their activations as they go. */
const roundingOps: ReadonlySet<OpName> = new Set<OpName>([
  "matmul",
  "pack_matrix",
  "embedding",
  "linear_cross_entropy",
  "linear_cross_entropy_gradient",
]);

/**
 * Gives forward and backward leaves of their own for every parameter that lies in a store, and computes what depends
 * on it alone (casts, packing) in each of them again: kept from one to the other it would take the memory that the
 * store saves.
 * @param stored the dtype in which each parameter is stored, by name.
 */
export function separateUses(graph: Graph, stored: ReadonlyMap<string, DType>): Graph {
  const work = parameterWork(graph);
  const derived = new Set<Node>();
  for (const node of graph.nodes) {
    if (!work.has(node)) continue;
    const own = node.op === "leaf" && stored.has(node.attributes.name);
    if (own || node.inputs.some((input) => derived.has(input.node))) derived.add(node);
  }
  if (derived.size === 0) return graph;
  const copies = { forward: new Map<Node, Node>(), backward: new Map<Node, Node>() };
  const copyOf = (value: Value, scope: Scope): Value => {
    let copy = copies[scope.phase].get(value.node);
    if (copy === undefined) {
      copy = copyNode(value.node as AnyNode, scope);
      copies[scope.phase].set(value.node, copy);
    }
    return { node: copy, index: value.index };
  };
  const copyNode = (node: AnyNode, scope: Scope): Node => {
    if (node.op !== "leaf") return reading(node, node.inputs, scope);
    const { name, shape } = node.attributes;
    const alias = scope.phase === "backward" ? backwardUse(name) : name;
    return apply("leaf", [], { name: alias, kind: "input", shape, dtype: stored.get(name)! }, { scope }).node;
  };
  /** The node with copies of what it reads; what it cannot read as it is stored is cast back. */
  const reading = (node: AnyNode, operands: readonly Value[], scope: Scope): Node => {
    const inputs = node.inputs.map((input, index) => {
      if (!derived.has(input.node)) return operands[index]!;
      const copy = copyOf(input, scope);
      if (dtypeOf(copy) === dtypeOf(input) || roundingOps.has(node.op)) return copy;
      return apply("cast", [copy], { dtype: dtypeOf(input) }, { scope });
    });
    return createNode(node.op, inputs, node.attributes, { ...node, scope });
  };
  const rewritten = rewrite(graph, (node, inputs) => {
    if (derived.has(node) || !node.inputs.some((input) => derived.has(input.node))) return undefined;
    const made = reading(node, inputs, node.scope);
    return made.outputs.map((_, index) => ({ node: made, index }));
  });
  const nodes = [...rewritten.nodes];
  const present = new Set<Node>(nodes);
  const append = (node: Node): void => {
    if (present.has(node)) return;
    present.add(node);
    for (const input of node.inputs) append(input.node);
    nodes.push(node as AnyNode);
  };
  const outputs = rewritten.outputs.map((output): GraphOutput => {
    const { value } = output;
    if (!derived.has(value.node)) return output;
    let copy = copyOf(value, value.node.scope);
    if (dtypeOf(copy) !== dtypeOf(value)) copy = apply("cast", [copy], { dtype: dtypeOf(value) });
    append(copy.node);
    return { ...output, value: copy };
  });
  return { ...rewritten, nodes, outputs };
}
