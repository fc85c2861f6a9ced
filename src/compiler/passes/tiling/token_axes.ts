import { type Dimension, type SymbolicDimension, sameDimension } from "../../../base/shape.ts";
import { type AnyNode, shapeOf, type Value } from "../../../graph/graph.ts";
import { shardingOf } from "../../../graph/rules/sharding.ts";

/** The axis of a value that counts the tokens; undefined where it has none. */
export function tokenAxis(value: Value, tokens: SymbolicDimension): number | undefined {
  const axis = shapeOf(value).findIndex((dimension) => sameDimension(dimension, tokens));
  return axis < 0 ? undefined : axis;
}

/**
 * Whether a node does with some of the tokens what it does with all: by its sharding rule (graph/rules/sharding.ts)
 * the tokens of its operands and of its results are one dimension that may be cut. Results without tokens are then
 * sums over them.
 */
export function takesTilesOf(node: AnyNode, tokens: SymbolicDimension): boolean {
  const rule = shardingOf(node);
  const labels = new Set<string | null>();
  let operands = 0;
  const look = (value: Value, dimensionLabels: readonly (string | null)[]): boolean => {
    let found = 0;
    for (const [axis, dimension] of shapeOf(value).entries()) {
      if (!countsTokens(dimension, tokens)) continue;
      // Several times the tokens, such as rows of heads, are not cut where the tokens are.
      if (!sameDimension(dimension, tokens)) return false;
      labels.add(dimensionLabels[axis] ?? null);
      found++;
    }
    operands += found;
    return found <= 1;
  };
  const fits =
    node.inputs.every((input, index) => look(input, rule.inputs[index] ?? [])) &&
    operands > 0 &&
    node.outputs.every((_, index) => look({ node, index }, rule.outputs[index] ?? []));
  return fits && labels.size === 1 && !labels.has(null);
}

function countsTokens(dimension: Dimension, { symbol }: SymbolicDimension): boolean {
  return typeof dimension !== "number" && dimension.symbol === symbol;
}
