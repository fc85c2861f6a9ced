import { expect, test } from "vitest";
import { add, leaf, multiply } from "../../graph/build.ts";
import { apply, buildGraph, type GraphOutput } from "../../graph/graph.ts";
import { communicationCost, simulate } from "./simulate.ts";

const group = { axes: "data", size: 4, rank: 0 };
/** 4,000 bytes a tensor: an elementwise operation moves 12,000, which take 12 s; memory is what takes time. */
const machine = {
  flops: 1e12,
  bandwidth: 1000,
  links: new Map([["data", { bandwidth: 300, latency: 1 }]]),
};

function x(name: string) {
  return leaf(name, "input", [1000], "f32");
}

test("what collectives send, by axes", () => {
  const reduced = apply("all_reduce", [x("a")], { group });
  const other = apply("permute", [reduced], { group: { ...group, axes: "tensor" }, offset: 1 });
  const graph = buildGraph("g", [{ name: "y", value: other }]);
  expect([...communicationCost(graph)]).toEqual([
    ["data", { bytes: 6000, messages: 6 }],
    ["tensor", { bytes: 4000, messages: 1 }],
  ]);
});

test("a collective runs beside the kernels until its result is read", () => {
  const [a, b, c] = [x("a"), x("b"), x("c")];
  // 1 message of 4,000 bytes: 1 + 4000 / 300 = 14.33 s.
  const moved = apply("permute", [a], { group, offset: 1 });
  const beside = add(b, c);
  const graph = buildGraph("g", [{ name: "y", value: multiply(beside, moved) }]);
  const memory = 12;
  const transfer = 1 + 4000 / 300;
  const result = simulate(graph, machine);
  expect(result.compute).toBeCloseTo(2 * memory, 9);
  expect(result.exposed).toBeCloseTo(transfer - memory, 9);
  expect(result.seconds).toBeCloseTo(transfer + memory, 9);
  expect(result.communication.get("data")).toBeCloseTo(transfer, 9);
});

test("collectives of one group queue, those of two run side by side, and the run ends with the last", () => {
  const outputs = (axes: readonly string[]): GraphOutput[] =>
    axes.map((name, index) => ({
      name: `y${index}`,
      value: apply("permute", [x(`x${index}`)], { group: { ...group, axes: name }, offset: 1 }),
    }));
  const links = new Map(["data", "tensor"].map((axes) => [axes, { bandwidth: 400, latency: 0 }]));
  const run = (axes: readonly string[]) =>
    simulate(buildGraph("g", outputs(axes)), { ...machine, links }).seconds;
  expect(run(["data", "data"])).toBeCloseTo(20, 9);
  expect(run(["data", "tensor"])).toBeCloseTo(10, 9);
});
