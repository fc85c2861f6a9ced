import { maximumElements, type SymbolicDimension, upperBound } from "../../../base/shape.ts";
import { type AnyNode, type Graph, type Node, shapeOf, type Value } from "../../../graph/graph.ts";
import { isView, keyOf } from "../../plan/storage.ts";
import { type Uses, usesOf } from "../rewrite.ts";
import { takesTilesOf, tokenAxis } from "./token_axes.ts";

/**
 * Products whose results meet token by token in one last product, such as the MLP of a block: gate and up, what joins
 * them, and down. Nothing else of the forward pass reads what lies between.
 */
export interface ProductChain {
  readonly tokens: SymbolicDimension;
  /** The nodes of the forward pass, in order; the last one is the last product. */
  readonly forward: readonly AnyNode[];
  /**
   * The nodes of the backward pass that read what lies between, or are about its gradients, in order. None in a graph
   * without gradients.
   */
  readonly backward: readonly AnyNode[];
}

/** The chains of a graph whose tokens divide into `tiles`, from the last to the first; no two share a node. */
export function findChains(graph: Graph, tiles: number): ProductChain[] {
  const uses = usesOf(graph);
  const taken = new Set<Node>();
  const chains: ProductChain[] = [];
  for (const last of [...graph.nodes].reverse()) {
    if (last.op !== "matmul" || last.scope.phase === "backward" || taken.has(last)) continue;
    const tokens = last.outputs[0]!.shape[0];
    if (tokens === undefined || typeof tokens === "number" || tokens.scale % tiles !== 0) continue;
    const forward = forwardOf(graph, last, tokens, uses);
    if (forward === undefined || forward.some((node) => taken.has(node))) continue;
    const backward = backwardOf(graph, forward, tokens, uses);
    if (backward === undefined || backward.some((node) => taken.has(node))) continue;
    for (const node of [...forward, ...backward]) taken.add(node);
    chains.push({ tokens, forward, backward });
  }
  return chains;
}

/** The chain that ends in a product, or undefined where there is none that is worth its ends. */
function forwardOf(
  graph: Graph,
  last: AnyNode,
  tokens: SymbolicDimension,
  uses: Uses,
): AnyNode[] | undefined {
  if (!takesTilesOf(last, tokens)) return undefined;
  const chain = new Set<Node>([last]);
  // Behind a product the chain ends; the last one is where it begins.
  const behind = new Set<Node>(last.inputs.map(({ node }) => node));
  let first = graph.nodes.indexOf(last);
  for (let position = first - 1; position >= 0; position--) {
    const node = graph.nodes[position]!;
    if (!behind.has(node) || node.scope.phase === "backward") continue;
    const within = (uses.readers.get(node) ?? []).every(
      (reader) => reader.scope.phase === "backward" || chain.has(reader),
    );
    const stored = node.outputs.some((_, index) => uses.isOutput({ node, index }));
    if (!within || stored || !takesTilesOf(node, tokens) || sumsOverTokens(node, tokens)) continue;
    chain.add(node);
    first = position;
    if (node.op !== "matmul") for (const input of node.inputs) behind.add(input.node);
  }
  const nodes = graph.nodes.slice(first).filter((node) => chain.has(node));
  const products = nodes.filter(({ op }) => op === "matmul").length;
  if (products < 2 || widthBetween(nodes, last, tokens) <= widthOfEnds(nodes, last, tokens)) return undefined;
  return nodes;
}

function sumsOverTokens(node: AnyNode, tokens: SymbolicDimension): boolean {
  return node.outputs.some((_, index) => tokenAxis({ node, index }, tokens) === undefined);
}

/** Elements a token. */
function width(value: Value, tokens: SymbolicDimension): number {
  return maximumElements(shapeOf(value)) / upperBound(tokens);
}

function widthBetween(nodes: readonly AnyNode[], last: Node, tokens: SymbolicDimension): number {
  return nodes
    .filter((node) => node !== last && !isView(node))
    .flatMap((node) => node.outputs.map((_, index) => width({ node, index }, tokens)))
    .reduce((sum, elements) => sum + elements, 0);
}

function widthOfEnds(nodes: readonly AnyNode[], last: Node, tokens: SymbolicDimension): number {
  const ends = new Map<string, Value>([["result", { node: last, index: 0 }]]);
  for (const { inputs } of nodes) {
    for (const input of inputs) {
      const read = tokenAxis(input, tokens) !== undefined && !nodes.includes(input.node as AnyNode);
      if (read) ends.set(keyOf(input), input);
    }
  }
  return [...ends.values()].reduce((sum, value) => sum + width(value, tokens), 0);
}

/**
 * The backward nodes of a chain: all that read what lies between, and from them through nodes that are no products to
 * the gradients around them. undefined where one of them cannot be computed tile by tile.
 */
function backwardOf(
  graph: Graph,
  forward: readonly AnyNode[],
  tokens: SymbolicDimension,
  uses: Uses,
): AnyNode[] | undefined {
  const between = new Set<Node>(forward.slice(0, -1));
  const isBackward = ({ scope }: Node): boolean => scope.phase === "backward";
  const found = new Set<AnyNode>();
  const pending: AnyNode[] = [];
  const include = (node: AnyNode): void => {
    if (found.has(node)) return;
    found.add(node);
    pending.push(node);
  };
  for (const node of graph.nodes) {
    if (!isBackward(node) || !node.inputs.some((input) => between.has(input.node))) continue;
    if (!takesTilesOf(node, tokens)) return undefined;
    include(node);
  }
  const readersOf = (node: Node): readonly AnyNode[] => uses.readers.get(node) ?? [];
  const dies = (node: Node): boolean =>
    readersOf(node).every((reader) => found.has(reader)) &&
    node.outputs.every((_, index) => !uses.isOutput({ node, index }));
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (node.op === "matmul") continue;
    for (const value of node.inputs) {
      const input = value.node as AnyNode;
      const fits = isBackward(input) && dies(input) && takesTilesOf(input, tokens);
      if (fits && !sumsOverTokens(input, tokens)) include(input);
    }
    if (sumsOverTokens(node, tokens)) continue;
    for (const reader of readersOf(node)) {
      if (isBackward(reader) && takesTilesOf(reader, tokens)) include(reader);
    }
  }
  const nodes = graph.nodes.filter((node) => found.has(node));
  return staysTogether(graph, nodes, found, tokens) ? nodes : undefined;
}

/** Whether nothing between the nodes of a set is outside, and none of them reads a sum that another makes. */
function staysTogether(
  graph: Graph,
  nodes: readonly AnyNode[],
  set: ReadonlySet<Node>,
  tokens: SymbolicDimension,
): boolean {
  const after = new Set<Node>();
  for (const node of graph.nodes) {
    const follows = node.inputs.some((input) => after.has(input.node) || set.has(input.node));
    if (!set.has(node)) {
      if (follows) after.add(node);
    } else if (node.inputs.some((input) => after.has(input.node))) return false;
  }
  return nodes.every(({ inputs }) =>
    inputs.every((input) => !set.has(input.node) || tokenAxis(input, tokens) !== undefined),
  );
}
