import { describe, expect, test } from "vitest";
import { InternalError } from "../base/errors.ts";
import { add, leaf, multiply, reshape } from "./build.ts";
import { type AnyNode, apply, buildGraph, type Graph, type GraphOutput, type Value } from "./graph.ts";
import { withScope } from "./scope.ts";
import { verifyGraph } from "./verify.ts";

const x = leaf("x", "input", [2, 3], "f32");
const y = withScope("model.layer", () => multiply(add(x, x), 2));
const graph = buildGraph("g", [{ name: "y", value: y }]);

function message(broken: Graph): string {
  try {
    verifyGraph(broken);
  } catch (error) {
    expect(error).toBeInstanceOf(InternalError);
    return (error as Error).message;
  }
  return "nothing";
}

/** The graph with the last node replaced by a changed copy. */
function withLast(change: Partial<AnyNode>): Graph {
  const last = { ...graph.nodes.at(-1)!, ...change } as AnyNode;
  return {
    ...graph,
    nodes: [...graph.nodes.slice(0, -1), last],
    outputs: [{ name: "y", value: { node: last, index: 0 } }],
  };
}

const withOutput = (output: Partial<GraphOutput>): Graph => ({
  ...graph,
  outputs: [{ name: "y", value: y, ...output }],
});

test("a graph as it was recorded is right", () => {
  expect(message(graph)).toBe("nothing");
});

describe("what is refused", () => {
  test("an input that does not come before its use", () => {
    const nodes = [...graph.nodes.slice(1), graph.nodes[0]!];
    expect(message({ ...graph, nodes })).toMatch(
      /internal: graph g: its input leaf does not come before it[\s\S]*%0 elementwise \(model.layer\)/,
    );
  });

  test("a node that is listed twice", () => {
    expect(message({ ...graph, nodes: [...graph.nodes, graph.nodes.at(-1)!] })).toMatch(/listed twice/);
  });

  test("types that the shape rule does not infer", () => {
    const broken = withLast({ outputs: [{ shape: [2, 3], dtype: "bf16" }] });
    expect(message(broken)).toMatch(/types are not those of its rule[\s\S]*f32\[2, 3\][\s\S]*bf16\[2, 3\]/);
  });

  test("operands that do not fit the op", () => {
    const other = leaf("other", "input", [5], "f32");
    const last = { ...graph.nodes.at(-1)!, inputs: [x, other] } as AnyNode;
    const nodes = [...graph.nodes.slice(0, -1), other.node as AnyNode, last];
    expect(message({ ...graph, nodes, outputs: [] })).toMatch(/operands do not fit[\s\S]*%4 elementwise/);
  });

  test("a result that does not exist", () => {
    expect(message(withLast({ inputs: [{ node: x.node, index: 1 }, x] }))).toMatch(/leaf has no output 1/);
    expect(message(withOutput({ value: { node: y.node, index: 2 } }))).toMatch(
      /no output 2[\s\S]*output "y"/,
    );
  });

  test("an output whose node is not there", () => {
    const outside = add(x, 1);
    expect(message(withOutput({ value: outside }))).toMatch(/elementwise is not in the graph/);
    const target = leaf("t", "state", [2, 3], "f32");
    expect(message(withOutput({ target }))).toMatch(/target is not in the graph/);
  });

  test("two leaves, or a leaf and an output, of one name", () => {
    const twin = leaf("x", "input", [1], "f32");
    expect(message(buildGraph("g", [{ name: "y", value: add(x, twin) }]))).toMatch(
      /two leaves are named "x"/,
    );
    expect(message(withOutput({ name: "x" }))).toMatch(/name is taken/);
  });

  test("a target of another type, and adding to no target", () => {
    const target = leaf("t", "state", [2, 3], "bf16");
    const broken = buildGraph("g", [{ name: "y", value: y, target }]);
    expect(message(broken)).toMatch(/target has another type[\s\S]*f32\[2, 3\][\s\S]*bf16\[2, 3\]/);
    expect(message(withOutput({ accumulate: true }))).toMatch(/accumulates without a target/);
  });
});

describe("what is overwritten in place", () => {
  const cache = leaf("cache", "state", [4, 1, 2], "f32");
  const rows = leaf("rows", "input", [1, 1, 2], "f32");
  const slots = leaf("slots", "input", [1], "i32");
  const write = (into: Value): Value => apply("cache_write", [into, rows, slots], {});

  test("may be read before, and as the result", () => {
    const before = add(cache, 1);
    const written = write(cache);
    const outputs = [
      { name: "before", value: before },
      { name: "after", value: add(written, 1) },
      { name: "cache", value: write(written), target: cache },
    ];
    // The second write reads the first one's result after it was added to.
    expect(message(buildGraph("g", outputs))).toBe("nothing");
  });

  test("may not be read afterwards, also not through a view", () => {
    const view = reshape(cache, [8]);
    const written = write(cache);
    const late = add(view, 1);
    const broken = buildGraph("g", [
      { name: "cache", value: written, target: cache },
      { name: "late", value: late },
    ]);
    expect(message(broken)).toMatch(/overwrites leaf, which %\d+ elementwise reads later[\s\S]*cache_write/);
  });

  test("may not be an output, or two operands", () => {
    const kept = buildGraph("g", [
      { name: "old", value: cache },
      { name: "new", value: write(cache) },
    ]);
    expect(message(kept)).toMatch(/overwrites leaf, which output "old" keeps/);
    const parameter = leaf("p", "state", [3], "f32");
    const hyper = leaf("hyper", "input", [5], "f32");
    const lion = apply("lion", [parameter, parameter, leaf("m", "state", [3], "f32"), hyper], {});
    expect(message(buildGraph("g", [{ name: "updated", value: lion }]))).toMatch(
      /reads what it overwrites twice/,
    );
  });
});
