import { expect, test } from "vitest";
import { CommunicationError } from "../../base/errors.ts";
import { add, leaf, multiply } from "../../graph/build.ts";
import { apply, buildGraph, type Graph } from "../../graph/graph.ts";
import type { RankGroup } from "../../graph/ops.ts";
import type { ProcessGroup } from "../group.ts";
import { createLocalWorld } from "../native/local_world.ts";
import { createReferenceBackend } from "./backend.ts";

const over = (axes: string, rank: number): RankGroup => ({ axes, size: 2, rank });
const x = leaf("x", "input", [2], "f32");

/** The two ranks of a world with groups "data" and "tensor". */
async function world(): Promise<ReadonlyMap<string, ProcessGroup>[]> {
  const ends = createLocalWorld(2, { timeoutSeconds: 10 });
  return await Promise.all(
    ends.map(async (end) => {
      const group = async (name: string) => [name, await end.subgroup(name, [0, 1])] as const;
      return new Map([await group("data"), await group("tensor")]);
    }),
  );
}

async function run(graphs: readonly Graph[], inputs: readonly (readonly number[])[]) {
  const groups = await world();
  return await Promise.allSettled(
    graphs.map(async (graph, rank) => {
      const executable = createReferenceBackend().compile(graph, { groups: groups[rank]! });
      const y = new Float64Array(2);
      const bindings = { x: Float64Array.from(inputs[rank]!), y };
      // Runs of a backend follow each other, so the second finds what the first left.
      await Promise.all([executable.run(bindings), executable.run(bindings)]);
      return [...y];
    }),
  );
}

test("reference ranks exchange their operands over process groups, in float64", async () => {
  const graphs = [0, 1].map((rank) => {
    const sum = apply("all_reduce", [multiply(x, 10)], { group: over("data", rank) });
    return buildGraph("sum", [{ name: "y", value: add(sum, x) }]);
  });
  const results = await run(graphs, [
    [1 + 1e-9, Number.POSITIVE_INFINITY],
    [2, -0],
  ]);
  expect(results.map((result) => "value" in result && result.value)).toEqual([
    [30 + 1e-8 + 1 + 1e-9, Number.POSITIVE_INFINITY],
    [30 + 1e-8 + 2, Number.POSITIVE_INFINITY],
  ]);
});

test("ranks may order the collectives of different groups differently", async () => {
  const graphs = [0, 1].map((rank) => {
    const [first, second] = rank === 0 ? ["data", "tensor"] : ["tensor", "data"];
    const shift = (axes: string) => apply("permute", [x], { group: over(axes, rank), offset: 1 });
    return buildGraph("crossed", [{ name: "y", value: add(shift(first!), shift(second!)) }]);
  });
  const results = await run(graphs, [
    [1, 2],
    [3, 4],
  ]);
  expect(results.map((result) => "value" in result && result.value)).toEqual([
    [6, 8],
    [2, 4],
  ]);
});

test("different collectives, and missing groups, are told of", async () => {
  const graphs = [0, 1].map((rank) => {
    const value = apply("permute", [x], { group: over("data", rank), offset: rank === 0 ? 1 : -1 });
    return buildGraph("different", [{ name: "y", value }]);
  });
  for (const result of await run(graphs, [
    [1, 2],
    [3, 4],
  ])) {
    const { reason } = result as PromiseRejectedResult;
    expect(reason).toBeInstanceOf(CommunicationError);
    expect(String(reason)).toMatch(/different collectives[\s\S]*"offset"/);
  }
  expect(() => createReferenceBackend().compile(graphs[0]!)).toThrow(/no process group is given/);
});
