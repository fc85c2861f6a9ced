import { bytesPerElement } from "../../base/dtype.ts";
import { maximumElements, sameShape } from "../../base/shape.ts";
import {
  type AnyNode,
  dtypeOf,
  type Graph,
  type GraphOutput,
  type Node,
  shapeOf,
  typeOf,
  type Value,
} from "../../graph/graph.ts";
import { accumulatingOutputs, inPlaceOutputs } from "../../graph/ops.ts";
import { type Uses, usesOf } from "../passes/rewrite.ts";

/** A value's identity as a key of maps. */
export function keyOf(value: Value): string {
  return `${value.node.id}.${value.index}`;
}

/** The value whose memory a value shares: reshapes are views, in-place results are their operand. */
export function rootOf(value: Value): Value {
  const { node } = value;
  if (node.op === "reshape") return rootOf(node.inputs[0]!);
  const pair = inPlaceOutputs[node.op]?.find(([output]) => output === value.index);
  return pair === undefined ? value : rootOf(node.inputs[pair[1]]!);
}

/** Bytes of a value with every symbol at its bound. */
export function bytesOf(value: Value): number {
  return maximumElements(shapeOf(value)) * bytesPerElement(dtypeOf(value));
}

/** Nodes without a step: their results are memory of the caller, of the program, or views. */
export function hasStep(node: Node): boolean {
  return node.op !== "leaf" && node.op !== "constant" && node.op !== "reshape";
}

/**
 * The nodes that depend on parameters and on nothing that changes from run to run: their steps run once,
 * until parameters change.
 */
export function parameterWork(graph: Graph): Set<Node> {
  const fixed = new Set<Node>();
  const prepared = new Set<Node>();
  for (const node of graph.nodes) {
    if (node.op === "leaf") {
      if (node.attributes.kind === "parameter") prepared.add(node);
      continue;
    }
    if (node.op === "random" || inPlaceOutputs[node.op] !== undefined) continue;
    const settled = node.inputs.every((input) => fixed.has(input.node) || prepared.has(input.node));
    if (!settled) continue;
    if (node.inputs.some((input) => prepared.has(input.node))) prepared.add(node);
    else fixed.add(node);
  }
  // A fixed operand of prepared work is prepared with it.
  for (const node of [...graph.nodes].reverse()) {
    if (prepared.has(node))
      for (const input of node.inputs) if (fixed.has(input.node)) prepared.add(input.node);
  }
  return prepared;
}

/** How one output reaches its memory. */
export type OutputRoute =
  /** The kernel that makes it writes there. */
  | { readonly kind: "direct"; readonly output: GraphOutput }
  /** The kernel adds to what is there. */
  | { readonly kind: "accumulate"; readonly output: GraphOutput }
  /** A step copies or adds it. */
  | { readonly kind: "store"; readonly output: GraphOutput }
  /** It is there already: updated in place. */
  | { readonly kind: "present"; readonly output: GraphOutput };

/** Chooses for every output whether its kernel can write where it belongs. */
export function routeOutputs(graph: Graph, prepared: ReadonlySet<Node>): OutputRoute[] {
  const uses = usesOf(graph);
  const position = new Map<Node, number>(graph.nodes.map((node, index) => [node, index]));
  const lastRead = new Map<string, number>();
  const rootUses = new Map<string, number>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) {
      const key = keyOf(rootOf(input));
      lastRead.set(key, position.get(node)!);
      if (node.op !== "reshape") rootUses.set(key, (rootUses.get(key) ?? 0) + 1);
    }
  }
  const directRoots = new Set<string>();
  const contributions = new Map<string, number>();
  for (const { target } of graph.outputs) {
    if (target !== undefined) contributions.set(keyOf(target), (contributions.get(keyOf(target)) ?? 0) + 1);
  }
  return graph.outputs.map((output): OutputRoute => {
    const { value, target } = output;
    const root = rootOf(value);
    const key = keyOf(root);
    if (target !== undefined && keyOf(target) === key && output.accumulate !== true)
      return { kind: "present", output };
    const written = hasStep(root.node) && !prepared.has(root.node) && !directRoots.has(key);
    const alone =
      (rootUses.get(key) ?? 0) === 0 &&
      graph.outputs.filter((o) => keyOf(rootOf(o.value)) === key).length === 1;
    const fits =
      target === undefined || (bytesOf(target) === bytesOf(root) && dtypeOf(target) === dtypeOf(root));
    if (output.accumulate === true) {
      const direct = written && alone && fits && canAccumulate(root, graph, uses);
      if (direct) directRoots.add(key);
      return { kind: direct ? "accumulate" : "store", output };
    }
    const readLater = target !== undefined && (lastRead.get(keyOf(target)) ?? -1) > position.get(root.node)!;
    const shared = target !== undefined && contributions.get(keyOf(target))! > 1 && !alone;
    if (!written || !fits || readLater || shared) return { kind: "store", output };
    directRoots.add(key);
    return { kind: "direct", output };
  });
}

/** Whether a kernel can add all of its accumulating results to their targets at once. */
function canAccumulate(root: Value, graph: Graph, uses: Uses): boolean {
  const node = root.node as AnyNode;
  const indices = accumulatingOutputs[node.op];
  if (indices === undefined || !indices.includes(root.index)) return false;
  return indices.every((index) => {
    const value: Value = { node, index };
    const output = graph.outputs.find((candidate) => keyOf(rootOf(candidate.value)) === keyOf(value));
    return (
      output?.accumulate === true &&
      typeOf(value).dtype === "f32" &&
      uses.count(value) <= 1 &&
      dtypeOf(output.target!) === "f32"
    );
  });
}

/** Whether a `map` may write its result over an operand that dies with it. */
export function canOverwrite(node: AnyNode, operand: Value): boolean {
  const type = node.outputs[0]!;
  return node.op === "map" && typeOf(operand).dtype === type.dtype && sameShape(shapeOf(operand), type.shape);
}
