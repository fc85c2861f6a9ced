import fc from "fast-check";
import { expect, test } from "vitest";
import { randomGraphs } from "../../../test/support/random_graph.ts";
import { bytesPerElement } from "../../base/dtype.ts";
import { maximumElements } from "../../base/shape.ts";
import { add, cast, leaf, unary } from "../../graph/build.ts";
import { apply, buildGraph, type Graph, type GraphOutput, type Value } from "../../graph/graph.ts";
import { describeProgram } from "../compile.ts";
import { planProgram } from "./plan.ts";
import type { Program, ProgramTensor, StartStep, Step, WaitStep } from "./program.ts";
import type { StoredLeaf } from "./tiers.ts";

const group = { axes: "data", size: 4, rank: 1 };
const input = (name: string, size = 16) => leaf(name, "input", [size], "f32");
const state = (name: string, size = 16) => leaf(name, "state", [size], "f32");
const allReduce = (x: Value) => apply("all_reduce", [x], { group });
const scatter = (x: Value) => apply("reduce_scatter", [x], { group, dimension: 0 });
const plan = (...outputs: GraphOutput[]): Program => planProgram(buildGraph("g", outputs));
const text = (program: Program): string => describeProgram(program);

test("a reduction is written straight into its target and waited for at the end", () => {
  const gradient = unary("exp", input("x"));
  const program = plan(
    { name: "g", value: scatter(gradient), target: state("g", 4) },
    { name: "y", value: unary("tanh", input("z")) },
  );
  expect(text(program)).toMatchInlineSnapshot(`
    "program g: 4 steps (+0 prepared), arena 64 bytes, prepared 0 bytes
      t1 = elementwise(t0)  # 
      start 0: t2 = reduce_scatter(t1) over data  # 
      t4 = elementwise(t3)  # 
      wait 0"
  `);
});

test("what is added to a target goes through the arena and is added after the wait", () => {
  const program = plan(
    { name: "g", value: scatter(unary("exp", input("x"))), target: state("g", 4), accumulate: true },
    { name: "y", value: unary("tanh", input("z")) },
  );
  expect(text(program)).toMatchInlineSnapshot(`
    "program g: 5 steps (+0 prepared), arena 128 bytes, prepared 0 bytes
      t1 = elementwise(t0)  # 
      start 0: t2 = reduce_scatter(t1) over data  # 
      t4 = elementwise(t3)  # 
      wait 0
      store t2 -> t5 (add)"
  `);
});

test("a sum is written over what dies with it, and over a leaf that it replaces", () => {
  const program = plan({ name: "y", value: unary("tanh", allReduce(unary("exp", input("x")))) });
  expect(program.arenaBytes).toBe(64);
  const t = state("t");
  const [start] = plan({ name: "t", value: allReduce(t), target: t }).steps as [StartStep];
  expect(start.outputs).toEqual(start.inputs);
  // Not where another reads it meanwhile.
  const x = unary("exp", input("x"));
  const both = plan({ name: "s", value: unary("tanh", allReduce(x)) }, { name: "y", value: add(x, 1) });
  expect(both.arenaBytes).toBe(128);
});

test("nobody overwrites operands before the wait", () => {
  const t = state("t");
  const program = plan(
    { name: "y", value: allReduce(t) },
    { name: "t", value: unary("exp", input("x")), target: t },
  );
  expect(text(program)).toMatchInlineSnapshot(`
    "program g: 3 steps (+0 prepared), arena 0 bytes, prepared 0 bytes
      start 0: t1 = all_reduce(t0) over data  # 
      wait 0
      t0 = elementwise(t2)  # "
  `);
});

test("reductions of a group hold twice the largest operand at most", () => {
  const outputs = [64, 16, 16, 16, 64, 64].map((size, index): GraphOutput => {
    const value = scatter(unary("exp", input(`x${index}`, size)));
    return { name: `g${index}`, value, target: state(`g${index}`, size / 4) };
  });
  const steps = planProgram(buildGraph("g", outputs)).steps.flatMap((step) =>
    step.kind === "start" || step.kind === "wait" ? [`${step.kind} ${step.ticket}`] : [],
  );
  // 64 + 16 + 16 + 16 fit in 128, another 64 does not before the first is gone.
  expect(steps).toEqual([
    ...["start 0", "start 1", "start 2", "start 3"],
    ...["wait 0", "start 4", "wait 1", "wait 2", "wait 3", "start 5", "wait 4", "wait 5"],
  ]);
});

test("what is prepared once holds no gather back", () => {
  const outputs = [16, 16, 16, 16].map((size, index): GraphOutput => {
    const part = cast(leaf(`p${index}`, "parameter", [size], "f32"), "bf16");
    return { name: `w${index}`, value: apply("all_gather", [part], { group, dimension: 0 }) };
  });
  const kinds = planProgram(buildGraph("g", outputs)).steps.map(({ kind }) => kind);
  expect(kinds).toEqual([...new Array(4).fill("start"), ...new Array(4).fill("wait")]);
});

test("collectives of a single rank take no step", () => {
  const alone = { axes: "data", size: 1, rank: 0 };
  const gathered = apply("all_gather", [unary("exp", input("x"))], { group: alone, dimension: 0 });
  const program = plan({ name: "y", value: unary("tanh", gathered) });
  expect(program.steps.map(({ kind }) => kind)).toEqual(["kernel", "kernel"]);
  expect(program.groups).toEqual([]);
});

test("a rank has one place in a group", () => {
  const other = apply("all_reduce", [allReduce(input("x"))], { group: { ...group, rank: 2 } });
  expect(() => plan({ name: "y", value: other })).toThrow(
    /two groups over "data"[\s\S]*rank 1 of 4 and rank 2 of 4/,
  );
});

/** The stretches of the arena that a step writes. */
function written(program: Program, tensors: readonly number[]): (readonly [number, number])[] {
  return tensors.flatMap((index) => stretch(program.tensors[index]!));
}

function stretch({ storage, shape, dtype }: ProgramTensor): (readonly [number, number])[] {
  if (storage.kind !== "arena") return [];
  return [[storage.offset, storage.offset + maximumElements(shape) * bytesPerElement(dtype)]];
}

/** Expects that nothing writes what a collective works on. Returns how often something moved. */
function expectHeld(program: Program): number {
  const held = new Map<number, (readonly [number, number])[]>();
  let moved = 0;
  for (const step of program.steps) {
    if (step.kind === "transfer") moved++;
    if (step.kind === "wait") {
      held.delete(step.ticket);
      continue;
    }
    for (const [from, to] of written(program, outputsOf(step)))
      for (const [first, last] of [...held.values()].flat())
        expect(to <= first || last <= from, `${step.kind} writes what is under way`).toBe(true);
    if (step.kind === "start") held.set(step.ticket, written(program, [...step.inputs, ...step.outputs]));
  }
  return moved;
}

function outputsOf(step: Exclude<Step, WaitStep>): readonly number[] {
  if (step.kind === "transfer") return step.action === "load" ? [step.tensor] : [];
  return step.kind === "store" ? [step.output] : step.outputs;
}

/** All state in a store. */
function stored(graph: Graph): Map<string, StoredLeaf> {
  const leaves = new Map<string, StoredLeaf>();
  for (const node of graph.nodes) {
    if (node.op === "leaf" && node.attributes.kind === "state")
      leaves.set(node.attributes.name, { store: "disk", offset: leaves.size * 4096 });
  }
  return leaves;
}

test("what lies in a store is in memory from a start to its wait, however far they are apart", () => {
  const sum = allReduce(state("t"));
  let chain: Value = input("x");
  for (let index = 0; index < 40; index++) chain = add(chain, state(`s${index}`));
  const graph = buildGraph("far", [
    { name: "sum", value: sum },
    { name: "chain", value: chain },
  ]);
  expect(expectHeld(planProgram(graph, { leaves: stored(graph), window: 0 }))).toBe(2 * 41);
});

test("nothing that moves to a store and back comes between a start and its wait", () => {
  const groups = [
    { axes: "data", size: 2, rank: 1 },
    { axes: "tensor", size: 2, rank: 0 },
  ];
  let moved = 0;
  fc.assert(
    fc.property(randomGraphs({ dtypes: ["f32"], groups }), fc.boolean(), (graph, limited) => {
      const leaves = stored(graph);
      const loose = planProgram(graph, { leaves, window: 0 });
      moved += expectHeld(limited ? planProgram(graph, { leaves, limit: loose.arenaBytes }) : loose);
    }),
    { numRuns: 100, endOnFailure: true },
  );
  expect(moved).toBeGreaterThan(100);
});
