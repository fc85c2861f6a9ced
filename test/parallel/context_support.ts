/** What the tests of context-parallel attention share: one attention with gradients, whole and cut over ranks. */
import { PhiloxStream } from "../../src/base/random.ts";
import { type Dimension, elementCount } from "../../src/base/shape.ts";
import { leaf, multiply, reduce, reshape } from "../../src/graph/build.ts";
import { gradients } from "../../src/graph/gradient.ts";
import { apply, buildGraph, type Graph, type GraphOutput, type Value } from "../../src/graph/graph.ts";
import type { AttentionAttributes } from "../../src/graph/ops.ts";
import type { ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { type ContextPlan, contextParallel } from "../../src/parallel/context/context_parallel.ts";
import { gridGroups, type SequenceGrid } from "../../src/parallel/context/grid.ts";
import { placesOf } from "../../src/parallel/context/token_order.ts";
import { Mesh } from "../../src/parallel/mesh.ts";
import { evaluate } from "../../src/runtime/reference/evaluate.ts";
import { evaluateRanks } from "../../src/runtime/reference/evaluate_ranks.ts";

/** An attention over packed sequences. */
export interface Problem {
  readonly offsets: readonly number[];
  readonly heads: number;
  readonly groups: number;
  readonly size: number;
  readonly attributes: AttentionAttributes;
}

/** A plan over ranks in one ring, but for what is given. */
export function planOf(given: Partial<SequenceGrid> & Partial<Omit<ContextPlan, "grid">>): ContextPlan {
  const { order, backward, ...grid } = given;
  return {
    order: order ?? "contiguous",
    backward: backward ?? "keys",
    grid: { head: 1, outer: 1, inner: 1, placement: "head_first", ...grid },
  };
}

/** Attention and the gradients of a weighted sum of its result, over `tokens` tokens. */
export function attentionGraph(
  { offsets, heads, groups, size, attributes }: Problem,
  tokens: Dimension,
  dtype: "f32" | "bf16" = "f32",
): Graph {
  const q = leaf("q", "input", [tokens, heads, size], dtype);
  const k = leaf("k", "input", [tokens, groups, size], dtype);
  const v = leaf("v", "input", [tokens, groups, size], dtype);
  const weights = leaf("weights", "input", [tokens, heads, size], dtype);
  const out = apply("attention", [q, k, v, leaf("offsets", "input", [offsets.length], "i32")], attributes);
  const loss = reshape(reduce("sum", multiply(out, weights), [0, 1, 2]), []);
  const results = gradients(loss, [q, k, v]);
  const named: [string, Value][] = [
    ["out", out],
    ...results.map((value, i): [string, Value] => [`d${"qkv"[i]}`, value]),
  ];
  return buildGraph(
    "attention",
    named.map(([name, value]): GraphOutput => ({ name, value })),
  );
}

/** Whole operands by the names of their leaves. */
export function operandsOf({ offsets, heads, groups, size }: Problem): Map<string, ReferenceTensor> {
  const tokens = offsets.at(-1)!;
  const draw = (stream: number, shape: number[]): ReferenceTensor => {
    const source = new PhiloxStream(5, stream);
    return { shape, values: Float64Array.from({ length: elementCount(shape) }, () => source.nextNormal()) };
  };
  return new Map([
    ["q", draw(0, [tokens, heads, size])],
    ["k", draw(1, [tokens, groups, size])],
    ["v", draw(2, [tokens, groups, size])],
    ["weights", draw(3, [tokens, heads, size])],
    ["offsets", { shape: [offsets.length], values: Float64Array.from(offsets) }],
  ]);
}

/** Rows of the first axis. */
export function rowsOf({ shape, values }: ReferenceTensor, rows: Int32Array): ReferenceTensor {
  const size = elementCount(shape.slice(1));
  const taken = new Float64Array(rows.length * size);
  rows.forEach((row, i) => {
    taken.set(values.subarray(row * size, (row + 1) * size), i * size);
  });
  return { shape: [rows.length, ...shape.slice(1)], values: taken };
}

/** What a rank of the sequence axis runs. */
export function rankGraph(
  problem: Problem,
  plan: ContextPlan,
  rank: number,
  dtype: "f32" | "bf16" = "f32",
  tokens?: Dimension,
): Graph {
  const ranks = plan.grid.head * plan.grid.outer * plan.grid.inner;
  const graph = attentionGraph(problem, tokens ?? problem.offsets.at(-1)! / ranks, dtype);
  return contextParallel(graph, new Mesh({ sequence: ranks }, rank), plan);
}

/** What each rank of the sequence axis runs, and on what. */
export function cut(problem: Problem, plan: ContextPlan, tokens?: Dimension) {
  const ranks = plan.grid.head * plan.grid.outer * plan.grid.inner;
  const total = problem.offsets.at(-1)!;
  const whole = operandsOf(problem);
  return Array.from({ length: ranks }, (_, rank) => {
    const mesh = new Mesh({ sequence: ranks }, rank);
    const places = placesOf(plan.order, total, rank, ranks);
    const leaves = new Map(
      [...whole].map(([name, tensor]) => [name, name === "offsets" ? tensor : rowsOf(tensor, places)]),
    );
    return { mesh, places, leaves, graph: rankGraph(problem, plan, rank, "f32", tokens) };
  });
}

/** The ranks of a rank's group of that name. */
export function membersOf(meshes: readonly Mesh[], grid: SequenceGrid) {
  return (axes: string, rank: number): readonly number[] => {
    const groups = [...gridGroups(meshes[rank]!, grid).values()];
    return groups.find(({ group }) => group.axes === axes)!.members;
  };
}

/** The results of all ranks put together, in float64, and what one rank computes. */
export function runBoth(
  problem: Problem,
  plan: ContextPlan,
  tokens?: { dimension: Dimension; value: number },
) {
  const parts = cut(problem, plan, tokens?.dimension);
  const results = evaluateRanks(
    parts.map(({ graph }) => graph),
    parts.map(({ leaves }) => leaves),
    {
      membersOf: membersOf(
        parts.map(({ mesh }) => mesh),
        plan.grid,
      ),
      ...(tokens === undefined ? {} : { symbols: { tokens: tokens.value } }),
    },
  );
  const whole = evaluate(attentionGraph(problem, problem.offsets.at(-1)!), operandsOf(problem));
  const joined = new Map<string, Float64Array>();
  for (const [name, { values, shape }] of whole) {
    const target = new Float64Array(values.length);
    const size = elementCount(shape.slice(1));
    results.forEach((result, rank) => {
      const own = result.get(name)!.values;
      parts[rank]!.places.forEach((place, i) => {
        target.set(own.subarray(i * size, (i + 1) * size), place * size);
      });
    });
    joined.set(name, target);
  }
  return { whole, joined };
}
