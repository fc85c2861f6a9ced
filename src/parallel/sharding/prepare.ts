import { ConfigError } from "../../base/errors.ts";
import type { SymbolicDimension } from "../../base/shape.ts";
import { add, broadcast, cast, reduce, reshape, unary } from "../../graph/build.ts";
import { type AnyNode, apply, createNode, type Graph, shapeOf, type Value } from "../../graph/graph.ts";
import type { OpAttributes, OpName } from "../../graph/ops.ts";
import { mapGraph } from "./map_graph.ts";

/**
 * Makes sizes that depend on a symbol a multiple of `multiple`, so that they divide among ranks: the symbol counts
 * groups of as many. A size of up to 100 tokens in fours becomes 4 x up to 25.
 */
export function scaleSymbol(graph: Graph, symbol: string, multiple: number): Graph {
  if (multiple === 1) return graph;
  const scaled = (value: unknown): unknown => {
    if (isDimension(value)) {
      if (value.symbol !== symbol) return value;
      return { symbol, bound: Math.ceil(value.bound / multiple), scale: value.scale * multiple };
    }
    return Array.isArray(value) ? value.map(scaled) : value;
  };
  return mapGraph(graph, (node, inputs) => {
    const attributes = Object.fromEntries(
      Object.entries(node.attributes).map(([name, value]) => [name, scaled(value)]),
    ) as unknown as OpAttributes[OpName];
    const made = createNode(node.op, inputs, attributes, node);
    return made.outputs.map((_, index) => ({ node: made, index }));
  });
}

function isDimension(value: unknown): value is SymbolicDimension {
  return typeof value === "object" && value !== null && "symbol" in value && "bound" in value;
}

/**
 * Takes bias, activation and residual out of products: they belong to the whole sum, which may be still to be made.
 * The passes of a single rank fuse them again where nothing came between.
 */
export function exposeEpilogues(graph: Graph): Graph {
  return mapGraph(graph, (node, inputs) => {
    if (node.op !== "matmul") return undefined;
    const { activation, bias, residual, dtype } = node.attributes;
    if (activation === "none" && !bias && !residual) return undefined;
    const [a, b, ...extra] = inputs as [Value, Value, ...Value[]];
    const plain = { ...node.attributes, activation: "none", bias: false, residual: false } as const;
    let result: Value = apply("matmul", [a, b], plain);
    if (bias) result = cast(add(result, extra[0]!), dtype);
    if (activation !== "none") result = unary(activation, result);
    if (residual) result = cast(add(result, extra.at(-1)!), dtype);
    return [result];
  });
}

/**
 * Repeats key/value heads that are fewer than the parts into which heads are cut, so that each part has its own; the
 * gradients of the copies are added up.
 * @param parts into how many parts heads are cut at most
 * @throws ConfigError where the heads themselves do not divide, with the numbers of parts that would do.
 */
export function repeatGroups(graph: Graph, parts: number): Graph {
  if (parts === 1) return graph;
  return mapGraph(graph, (node, inputs) => {
    if (node.op === "attention") {
      const [q, k, v, offsets] = inputs as [Value, Value, Value, Value];
      const repeats = repeatsOf(node, q, k, parts);
      if (repeats === 1) return undefined;
      const operands = [q, repeated(k, repeats), repeated(v, repeats), offsets];
      const made = createNode("attention", operands, node.attributes);
      return made.outputs.map((_, index) => ({ node: made, index }));
    }
    if (node.op === "attention_gradient") {
      const [dOut, q, k, v, ...rest] = inputs as [Value, Value, Value, Value, ...Value[]];
      const repeats = repeatsOf(node, q, k, parts);
      if (repeats === 1) return undefined;
      const operands = [dOut, q, repeated(k, repeats), repeated(v, repeats), ...rest];
      const made = createNode("attention_gradient", operands, node.attributes);
      return [
        { node: made, index: 0 },
        ...[1, 2].map((index) => summedCopies({ node: made, index }, repeats)),
      ];
    }
    return undefined;
  });
}

/** How often each key/value head must be there. */
function repeatsOf(node: AnyNode, q: Value, k: Value, parts: number): number {
  const [heads, groups] = [shapeOf(q)[1] as number, shapeOf(k)[1] as number];
  if (heads % parts !== 0) {
    const legal = Array.from({ length: heads }, (_, index) => index + 1).filter((n) => heads % n === 0);
    throw new ConfigError("heads_not_divisible", "the attention heads do not divide among the ranks", {
      where: `parallel.tensor x parallel.sequence${node.scope.name === "" ? "" : ` (${node.scope.name})`}`,
      expected: `a product that divides ${heads} heads: ${legal.join(", ")}`,
      received: String(parts),
    });
  }
  return leastCommonMultiple(groups, parts) / groups;
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y !== 0) [x, y] = [y, x % y];
  return (a / x) * b;
}

/** [tokens, groups, size] with each group several times, one copy beside the other. */
function repeated(value: Value, repeats: number): Value {
  const [tokens, groups, size] = shapeOf(value) as [number, number, number];
  const wide = broadcast(reshape(value, [tokens, groups, 1, size]), [tokens, groups, repeats, size]);
  return reshape(wide, [tokens, groups * repeats, size]);
}

function summedCopies(value: Value, repeats: number): Value {
  const [tokens, copies, size] = shapeOf(value) as [number, number, number];
  return reduce("sum", reshape(value, [tokens, copies / repeats, repeats, size]), [2]);
}
