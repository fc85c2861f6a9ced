import { ConfigError } from "../../../base/errors.ts";
import { type Shape, type SymbolicDimension, sameDimension } from "../../../base/shape.ts";
import { add } from "../../../graph/build.ts";
import {
  type AnyNode,
  apply,
  createNode,
  dtypeOf,
  type Graph,
  type GraphOutput,
  type Node,
  shapeOf,
  type Value,
  withInputs,
} from "../../../graph/graph.ts";
import type { OpAttributes, OpName } from "../../../graph/ops.ts";
import { inScope, type Scope } from "../../../graph/scope.ts";
import { keyOf } from "../../plan/storage.ts";
import { findChains } from "./product_chains.ts";
import { tokenAxis } from "./token_axes.ts";

/** What is computed again in tiles stays apart from the forward pass: its numbers follow those of other copies. */
const firstTag = 2 ** 21;

/**
 * Computes the products between two narrow values, such as the MLP of a block, in tiles of tokens one after another,
 * so that what lies between them exists for one tile at a time (Bekman et al., "Arctic Long Sequence Training", arXiv
 * 2506.13996). Of a tile the forward pass keeps nothing; the backward pass computes it again from the operands of the
 * chain, and adds up the gradients of weights in the order of tiles.
 *
 * Chains are found by what they are (`product_chains.ts`), not by name. Results of rows are the same bits as without
 * tiles; sums over tokens have other terms.
 *
 * @param tiles divides the number of tokens: the scale of their symbol
 * @throws ConfigError where the graph has no such chain.
 */
export function tileTokens(graph: Graph, tiles: number): Graph {
  if (tiles === 1) return graph;
  const chains = findChains(graph, tiles);
  if (chains.length === 0) {
    throw new ConfigError("nothing_to_tile", "the model has nothing to compute in tiles of tokens", {
      where: "activation_checkpointing.mlp_tiles",
      expected: "a model whose blocks have an MLP that is wider than its input and output",
      hint: "set activation_checkpointing.mlp_tiles to 1",
    });
  }
  let current = graph;
  // Tiling one chain gives the nodes after it other operands.
  const replaced = new Map<Node, AnyNode>();
  const latest = (node: AnyNode): AnyNode => {
    let found = node;
    for (let next = replaced.get(found); next !== undefined; next = replaced.get(found)) found = next;
    return found;
  };
  chains.forEach(({ tokens, forward, backward }, index) => {
    const again = new Set<Node>(forward.slice(0, -1).map(latest));
    const tag = firstTag + index;
    if (backward.length > 0)
      current = tileNodes(current, backward.map(latest), { tokens, tiles, again, tag }, replaced);
    const tiling = { tokens, tiles, again: new Set<Node>(), tag: undefined };
    current = tileNodes(current, forward.map(latest), tiling, replaced);
  });
  return current;
}

/** How a set of nodes is computed in tiles. */
interface Tiling {
  readonly tokens: SymbolicDimension;
  readonly tiles: number;
  /** Nodes outside of the set that each tile computes again. */
  readonly again: ReadonlySet<Node>;
  /** What marks all nodes of the tiles. */
  readonly tag: number | undefined;
}

/**
 * Replaces a set of nodes by tiles of them, which stand where the last of the set stood.
 * @param replaced gets the nodes that follow and their successors with other operands
 */
function tileNodes(
  graph: Graph,
  nodes: readonly AnyNode[],
  tiling: Tiling,
  replaced: Map<Node, AnyNode>,
): Graph {
  const set = new Set<Node>(nodes);
  const place = Math.max(...nodes.map((node) => graph.nodes.indexOf(node)));
  const before: AnyNode[] = [];
  const after: AnyNode[] = [];
  const follows = new Set<Node>(nodes);
  graph.nodes.forEach((node, position) => {
    if (set.has(node)) return;
    if (node.inputs.some((input) => follows.has(input.node))) follows.add(node);
    if (position < place && !follows.has(node)) before.push(node);
    else after.push(node);
  });
  const stored = graph.outputs.map(({ value }) => value).filter(({ node }) => set.has(node));
  const read = after.flatMap(({ inputs }) => inputs).filter(({ node }) => set.has(node));
  const ends = new Map([...stored, ...read].map((value) => [keyOf(value), value]));
  const sums = new Set(read.filter((value) => tokenAxis(value, tiling.tokens) === undefined).map(keyOf));
  const tiles = new TiledNodes(nodes, tiling);
  const whole = new Map<string, Value>();
  const parts = new Map<string, Value[]>([...ends.keys()].map((key) => [key, []]));
  for (let tile = 0; tile < tiling.tiles; tile++) {
    const results = tiles.compute(tile);
    for (const [key, value] of ends) {
      const part = results(value);
      parts.get(key)!.push(part);
      const sum = whole.get(key);
      // Added up at once: two terms are there at a time.
      if (sums.has(key)) whole.set(key, sum === undefined ? part : tiles.sum(value, sum, part));
    }
  }
  for (const [key, value] of ends) {
    const axis = tokenAxis(value, tiling.tokens);
    if (axis !== undefined) whole.set(key, tiles.join(value, axis, parts.get(key)!));
  }
  const rebuilt = new Map<Node, AnyNode>();
  const current = (value: Value): Value => {
    const node = rebuilt.get(value.node);
    return whole.get(keyOf(value)) ?? (node === undefined ? value : { node, index: value.index });
  };
  const rest = after.map((node) => {
    const next = withInputs(node, node.inputs.map(current));
    if (next !== node) {
      rebuilt.set(node, next);
      replaced.set(node, next);
    }
    return next;
  });
  const outputs = graph.outputs.flatMap((output): GraphOutput[] => {
    const { value, target, accumulate } = output;
    const terms = parts.get(keyOf(value));
    const term = terms !== undefined && tokenAxis(value, tiling.tokens) === undefined;
    if (!term || sums.has(keyOf(value))) return [{ ...output, value: current(value) }];
    // 16-bit memory would round after every term, and memory of the caller's cannot be added to.
    if (target === undefined || dtypeOf(target) !== "f32")
      return [{ ...output, value: terms.reduce((sum, part) => tiles.sum(value, sum, part)) }];
    return terms.map((part, tile) => ({
      ...output,
      value: part,
      accumulate: tile > 0 || accumulate === true,
    }));
  });
  return { ...graph, nodes: [...before, ...tiles.nodes, ...rest], outputs };
}

/** Makes the tiles of a set of nodes. */
class TiledNodes {
  /** All nodes made, in order. */
  readonly nodes: AnyNode[] = [];
  readonly #set: readonly AnyNode[];
  readonly #tiling: Tiling;
  /** The nodes of a tile, those that are computed again first. */
  readonly #order: readonly AnyNode[];

  constructor(nodes: readonly AnyNode[], tiling: Tiling) {
    this.#set = nodes;
    this.#tiling = tiling;
    const needed = new Set<Node>();
    const need = ({ inputs }: Node): void => {
      for (const { node } of inputs) {
        if (!tiling.again.has(node) || needed.has(node)) continue;
        needed.add(node);
        need(node);
      }
    };
    for (const node of nodes) need(node);
    this.#order = [...([...tiling.again].filter((node) => needed.has(node)) as AnyNode[]), ...this.#set];
  }

  /** Computes the nodes for one tile. Returns what there is of a value in the tile. */
  compute(tile: number): (value: Value) => Value {
    const { tokens } = this.#tiling;
    const made = new Map<Node, AnyNode>();
    const slices = new Map<string, Value>();
    const partOf = (value: Value): Value => {
      const node = made.get(value.node);
      if (node !== undefined) return { node, index: value.index };
      const axis = tokenAxis(value, tokens);
      if (axis === undefined) return value;
      const key = keyOf(value);
      const slice = slices.get(key) ?? this.#slice(value, axis, tile);
      slices.set(key, slice);
      return slice;
    };
    for (const node of this.#order) {
      const scope = this.#scopeOf(node);
      const attributes = this.#cut(node.attributes) as OpAttributes[OpName];
      const inputs = inScope(scope, () => node.inputs.map(partOf));
      const copy = this.#add(
        createNode(node.op, inputs, attributes, { scope, recomputed: this.#tagOf(node) }),
      );
      made.set(node, copy);
    }
    return partOf;
  }

  /** Tiles one after another along the tokens: what the value was. */
  join(value: Value, axis: number, parts: readonly Value[]): Value {
    return inScope(value.node.scope, () => {
      const rows = parts.map((part) => this.#reshape(part, shapeOf(part).toSpliced(axis, 0, 1)));
      const all = this.#apply("concatenate", rows, { axis });
      return this.#reshape(all, shapeOf(value));
    });
  }

  /** The sum of two terms of a value. */
  sum(value: Value, a: Value, b: Value): Value {
    return inScope(value.node.scope, () => {
      const total = add(a, b);
      this.#add(total.node);
      return total;
    });
  }

  #slice(value: Value, axis: number, tile: number): Value {
    const shape = shapeOf(value);
    const { tiles, tokens } = this.#tiling;
    const split = shape.toSpliced(axis, 1, tiles, tileOf(tokens, tiles));
    const starts = split.map((_, position) => (position === axis ? tile : 0));
    const row = this.#apply("slice", [this.#reshape(value, split)], { starts, sizes: split.with(axis, 1) });
    return this.#reshape(row, shape.with(axis, tileOf(tokens, tiles)));
  }

  #reshape(value: Value, shape: Shape): Value {
    return this.#apply("reshape", [value], { shape });
  }

  #apply<Op extends OpName>(op: Op, inputs: readonly Value[], attributes: OpAttributes[Op]): Value {
    const { node } = apply(op, inputs, attributes, { recomputed: this.#tiling.tag });
    return { node: this.#add(node), index: 0 };
  }

  #add(node: Node): AnyNode {
    this.nodes.push(node as AnyNode);
    return node as AnyNode;
  }

  #tagOf({ recomputed }: Node): number | undefined {
    return this.#tiling.tag ?? recomputed;
  }

  /** What is computed again belongs to the backward pass. */
  #scopeOf(node: Node): Scope {
    return this.#tiling.again.has(node) ? { ...node.scope, phase: "backward" } : node.scope;
  }

  /** Attributes with the tokens of a tile in place of all. */
  #cut(attributes: unknown): unknown {
    const { tokens, tiles } = this.#tiling;
    const cut = (value: unknown): unknown => {
      if (Array.isArray(value)) return value.map(cut);
      return isDimension(value) && sameDimension(value, tokens) ? tileOf(tokens, tiles) : value;
    };
    return Object.fromEntries(
      Object.entries(attributes as object).map(([name, value]) => [name, cut(value)]),
    );
  }
}

/** The tokens of one tile. */
function tileOf(tokens: SymbolicDimension, tiles: number): SymbolicDimension {
  return { ...tokens, scale: tokens.scale / tiles };
}

function isDimension(value: unknown): value is SymbolicDimension {
  return typeof value === "object" && value !== null && "symbol" in value && "bound" in value;
}
