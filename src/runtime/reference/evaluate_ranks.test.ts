import { expect, test } from "vitest";
import { add, leaf, multiply } from "../../graph/build.ts";
import { apply, buildGraph, createNode, type Graph, type Value } from "../../graph/graph.ts";
import type { ReferenceTensor } from "../../graph/rules/reference.ts";
import { type EvaluateRanksOptions, evaluateRanks } from "./evaluate_ranks.ts";

const world = (rank: number, size: number, axes = "data") => ({ axes, size, rank });
const input = (shape: readonly number[]): Value => leaf("x", "input", shape, "f32");

function bind(shape: readonly number[], ...values: number[]): ReadonlyMap<string, ReferenceTensor> {
  return new Map([["x", { shape, values: Float64Array.from(values) }]]);
}

function outputs(
  graphs: readonly Graph[],
  leaves: readonly ReadonlyMap<string, ReferenceTensor>[],
  options: EvaluateRanksOptions = {},
): number[][] {
  return evaluateRanks(graphs, leaves, options).map((rank) => [...rank.get("y")!.values]);
}

test("each rank gets its results of collectives and computes on", () => {
  const graphs = [0, 1].map((rank) => {
    const sum = apply("all_reduce", [input([2])], { group: world(rank, 2) });
    const part = apply("reduce_scatter", [multiply(sum, 10)], { group: world(rank, 2), dimension: 0 });
    return buildGraph("sums", [{ name: "y", value: add(part, 1) }]);
  });
  // Sums [4, 6]; each rank adds ten times that to the other's, and keeps its half.
  expect(outputs(graphs, [bind([2], 1, 2), bind([2], 3, 4)])).toEqual([[81], [121]]);
});

test("groups over axes of a mesh", () => {
  // Ranks (data, tensor) = 0 0, 0 1, 1 0, 1 1.
  const membersOf = (axes: string, rank: number): number[] =>
    axes === "tensor" ? [rank & 2, (rank & 2) + 1] : [rank & 1, (rank & 1) + 2];
  const graphs = [0, 1, 2, 3].map((rank) => {
    const gathered = apply("all_gather", [input([1])], { group: world(rank & 1, 2, "tensor"), dimension: 0 });
    return buildGraph("mesh", [
      { name: "y", value: apply("all_reduce", [gathered], { group: world(rank >> 1, 2, "data") }) },
    ]);
  });
  const leaves = [1, 20, 300, 4000].map((value) => bind([1], value));
  expect(outputs(graphs, leaves, { membersOf })).toEqual([301, 301, 301, 301].map((sum) => [sum, 4020]));
});

test("a collective starts where it stands: ranks may order those of different groups differently", () => {
  const graphs = [0, 1].map((rank) => {
    const x = input([1]);
    const build = (axes: string) => apply("permute", [x], { group: world(rank, 2, axes), offset: 1 });
    const first = build(rank === 0 ? "data" : "tensor");
    const second = build(rank === 0 ? "tensor" : "data");
    return buildGraph("crossed", [{ name: "y", value: add(first, second) }]);
  });
  expect(outputs(graphs, [bind([1], 1), bind([1], 2)])).toEqual([[4], [2]]);
});

test("buckets, symbolic sizes and groups of one rank", () => {
  const graphs = [0, 1].map((rank) => {
    const x = leaf("x", "input", [{ symbol: "rows", bound: 4, scale: 2 }, 1], "f32");
    const alone = apply("all_gather", [x], { group: world(0, 1, "tensor"), dimension: 0 });
    const node = createNode("all_to_all", [alone, add(alone, 100)], {
      group: world(rank, 2),
      split: 0,
      concatenate: 1,
    });
    return buildGraph("bucket", [
      { name: "y", value: add({ node, index: 0 }, multiply({ node, index: 1 }, 0)) },
      { name: "z", value: { node, index: 1 } },
    ]);
  });
  const [first, second] = evaluateRanks(graphs, [bind([4, 1], 1, 2, 3, 4), bind([4, 1], 5, 6, 7, 8)], {
    symbols: { rows: 2 },
  });
  expect(first!.get("y")).toEqual({ shape: [2, 2], values: Float64Array.of(1, 5, 2, 6) });
  expect([...second!.get("z")!.values]).toEqual([103, 107, 104, 108]);
});

test("ranks that call different collectives, or wait for one that never comes, are told of", () => {
  const call = (rank: number, offset: number): Graph => {
    const value = apply("permute", [input([1])], { group: world(rank, 2), offset });
    return buildGraph("shift", [{ name: "y", value }]);
  };
  const leaves = [bind([1], 1), bind([1], 2)];
  expect(() => evaluateRanks([call(0, 1), call(1, -1)], leaves)).toThrow(
    /different collectives[\s\S]*"offset":1[\s\S]*as rank 0[\s\S]*"offset":-1[\s\S]*by rank 1/,
  );
  expect(() => evaluateRanks([call(0, 1), buildGraph("none", [])], leaves)).toThrow(
    /never come[\s\S]*rank 0 in permute of "data"/,
  );
  expect(() => evaluateRanks([call(1, 1), call(0, 1)], leaves)).toThrow(/as rank 1 of 2/);
});
