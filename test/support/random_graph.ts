import fc from "fast-check";
import type { DType } from "../../src/base/dtype.ts";
import { elementCount, type Shape, sameShape } from "../../src/base/shape.ts";
import * as build from "../../src/graph/build.ts";
import type { BinaryOperation, UnaryOperation } from "../../src/graph/expression.ts";
import {
  apply,
  buildGraph,
  createNode,
  dtypeOf,
  type Graph,
  type GraphOutput,
  type Node,
  shapeOf,
  type Value,
} from "../../src/graph/graph.ts";
import type { RankGroup } from "../../src/graph/ops.ts";
import { printGraph } from "../../src/graph/print.ts";
import { inScope } from "../../src/graph/scope.ts";

/** Small graphs for property tests: made from a list of random numbers, so that failures shrink. */

/** Which graphs to make. */
export interface RandomGraphOptions {
  /** Dtypes of the leaves; more than one also makes casts. */
  readonly dtypes: readonly DType[];
  /** Only elementwise work, in which fusion must keep every bit. */
  readonly elementwiseOnly?: boolean;
  /** Also collectives over these groups: one rank's graph. The other ranks' are made from the same numbers. */
  readonly groups?: readonly RankGroup[];
}

const shapes: readonly (readonly number[])[] = [[4, 6], [6], [4, 1], [6, 4], []];
const unaryOperations: readonly UnaryOperation[] = [
  "negate",
  "tanh",
  "sigmoid",
  "silu",
  "relu",
  "absolute",
  "cos",
  "gelu",
];
const binaryOperations: readonly BinaryOperation[] = [
  "add",
  "multiply",
  "subtract",
  "maximum",
  "minimum",
  "less",
];

/** Reads choices one after another; past the end every choice is the first. */
class Choices {
  readonly #numbers: readonly number[];
  #next = 0;

  constructor(numbers: readonly number[]) {
    this.#numbers = numbers;
  }

  get left(): boolean {
    return this.#next < this.#numbers.length;
  }

  below(count: number): number {
    const number = this.#numbers[this.#next++] ?? 0;
    return number % count;
  }

  of<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)]!;
  }
}

function broadcasts(a: Shape, b: Shape): boolean {
  const [long, short] = a.length >= b.length ? [a, b] : [b, a];
  const offset = long.length - short.length;
  return short.every((size, axis) => size === 1 || long[offset + axis] === 1 || size === long[offset + axis]);
}

function mixes(a: Value, b: Value): boolean {
  const dtypes = [dtypeOf(a), dtypeOf(b)];
  return !(dtypes.includes("bf16") && dtypes.includes("f16"));
}

/** A value that exists: mostly a recent one, so that chains grow long. */
function pick(values: readonly Value[], choices: Choices): Value {
  const recent = choices.below(4) > 0 ? Math.min(values.length, 8) : values.length;
  return values[values.length - 1 - choices.below(recent)]!;
}

/** One more value from those that exist; undefined where the choice does not fit them. */
function grow(values: readonly Value[], choices: Choices, options: RandomGraphOptions): Value | undefined {
  const x = pick(values, choices);
  const shape = shapeOf(x) as number[];
  const kinds = options.elementwiseOnly === true ? 6 : 15;
  const { groups = [] } = options;
  if (groups.length > 0 && choices.below(4) === 0) return collective(values, choices, choices.of(groups));
  switch (choices.below(kinds)) {
    case 0:
      return build.unary(choices.of(unaryOperations), x);
    case 1:
    case 2: {
      const y = pick(values, choices);
      return broadcasts(shape, shapeOf(y)) && mixes(x, y)
        ? build.binary(choices.of(binaryOperations), x, y)
        : undefined;
    }
    case 3:
      return build.binary(choices.of(binaryOperations), x, choices.of([0, 1, -0, 0.5, -1.25]));
    case 4:
      return build.cast(x, choices.of(options.dtypes));
    case 5: {
      const y = pick(values, choices);
      const fits = sameShape(shape, shapeOf(y)) && mixes(x, y);
      return fits ? build.elementwise("select", x, x, y) : undefined;
    }
    case 6:
      return build.reshape(x, choices.of([[elementCount(shape)], [1, ...shape], [elementCount(shape), 1]]));
    case 7:
      return build.broadcast(x, [2, ...shape]);
    case 8:
      return build.transpose(x, shape.map((_, axis) => axis).reverse());
    case 9: {
      const sizes = shape.map((size) => Math.max(1, size - 1));
      return apply("slice", [x], { starts: shape.map((size, axis) => size - sizes[axis]!), sizes });
    }
    case 10:
      return shape.length === 0
        ? undefined
        : build.reduce("sum", x, [choices.below(shape.length)], choices.below(2) === 1);
    case 11: {
      const y = pick(values, choices);
      const b = shapeOf(y) as number[];
      if (shape.length !== 2 || b.length !== 2 || !mixes(x, y)) return undefined;
      const [transposeA, transposeB] = [choices.below(2) === 1, choices.below(2) === 1];
      return shape[transposeA ? 0 : 1] === b[transposeB ? 1 : 0]
        ? build.matmul(x, y, { transposeA, transposeB })
        : undefined;
    }
    case 12:
      return shape.length === 0 ? undefined : apply("softmax", [x], {});
    case 13:
      return shape.length === 0
        ? undefined
        : apply("concatenate", [x, x], { axis: choices.below(shape.length) });
    default:
      return build.constant([0.5, -2, 1.5, 3, 0.25, -1], [6], choices.of(options.dtypes));
  }
}

/** A result of a collective of one or two values. */
function collective(values: readonly Value[], choices: Choices, group: RankGroup): Value | undefined {
  const x = pick(values, choices);
  const bucket = choices.below(3) === 0 ? [x, pick(values, choices)] : [x];
  const node = collectiveOf(bucket, choices, group);
  return node === undefined ? undefined : { node, index: choices.below(bucket.length) };
}

function collectiveOf(bucket: readonly Value[], choices: Choices, group: RankGroup): Node | undefined {
  const ranks = bucket.map((value) => shapeOf(value).length);
  const divides = (axis: number): boolean =>
    bucket.every((value) => (shapeOf(value)[axis] as number) % group.size === 0);
  const kind = choices.below(5);
  if (kind === 0) return createNode("all_reduce", bucket, { group });
  if (kind === 1) return createNode("permute", bucket, { group, offset: choices.below(3) - 1 });
  if (Math.min(...ranks) === 0) return undefined;
  const dimension = choices.below(Math.min(...ranks));
  if (kind === 2) return createNode("all_gather", bucket, { group, dimension });
  if (!divides(dimension)) return undefined;
  if (kind === 3) return createNode("reduce_scatter", bucket, { group, dimension });
  const concatenate = choices.below(Math.min(...ranks));
  return createNode("all_to_all", bucket, { group, split: dimension, concatenate });
}

/** Outputs: some named, some stored into or added to leaves, among them leaves that the graph reads. */
function chooseOutputs(
  leaves: readonly Value<"leaf">[],
  made: readonly Value[],
  choices: Choices,
): GraphOutput[] {
  const outputs: GraphOutput[] = [];
  const count = 2 + choices.below(5);
  for (let index = 0; index < count; index++) {
    const value = index === 0 ? made.at(-1)! : pick(made, choices);
    const name = `y${index}`;
    const same = leaves.filter(
      (leaf) =>
        leaf.node.attributes.kind === "state" &&
        sameShape(shapeOf(leaf), shapeOf(value)) &&
        dtypeOf(leaf) === dtypeOf(value),
    );
    const kind = choices.below(4);
    if (kind === 0 && same.length > 0) outputs.push({ name, value, target: choices.of(same) });
    else if (kind === 1 && same.length > 0)
      outputs.push({ name, value, target: choices.of(same), accumulate: true });
    else if (kind === 2) {
      const target = build.leaf(`t${index}`, "state", shapeOf(value), dtypeOf(value));
      outputs.push({ name, value, target, accumulate: choices.below(2) === 1 });
    } else outputs.push({ name, value });
  }
  return outputs;
}

/** A graph from random numbers. */
export function graphFrom(
  numbers: readonly number[],
  endings: readonly number[],
  options: RandomGraphOptions,
): Graph {
  const choices = new Choices(numbers);
  const leaves = shapes.flatMap((shape, index) =>
    options.dtypes.map((dtype) => {
      const kind = (["input", "parameter", "state"] as const)[choices.below(3)]!;
      return build.leaf(`x${index} ${dtype}`, kind, shape, dtype);
    }),
  );
  const values: Value[] = [...leaves];
  while (choices.left && values.length < 60) {
    const scope = {
      name: "",
      block: undefined,
      phase: choices.below(2) === 0 ? "forward" : "backward",
    } as const;
    const grown = inScope(scope, () => grow(values, choices, options));
    if (grown !== undefined && elementCount(shapeOf(grown) as number[]) <= 200) values.push(grown);
  }
  return buildGraph("random", chooseOutputs(leaves, values, new Choices(endings)));
}

/** Arbitrary graphs. */
export function randomGraphs(options: RandomGraphOptions): fc.Arbitrary<Graph> {
  return randomRanks([options]).map(([graph]) => graph!);
}

/** Arbitrary graphs that are the same but for their options, such as those of several ranks. */
export function randomRanks(ranks: readonly RandomGraphOptions[]): fc.Arbitrary<Graph[]> {
  const choice = fc.noBias(fc.integer({ min: 0, max: 1e6 }));
  return fc
    .tuple(
      fc.array(choice, { minLength: 60, maxLength: 300, size: "max" }),
      fc.array(choice, { minLength: 30, maxLength: 30 }),
    )
    .map(([numbers, endings]) =>
      ranks.map((options) => {
        const graph = graphFrom(numbers, endings, options);
        return { ...graph, [fc.toStringMethod]: () => printGraph(graph) };
      }),
    );
}
