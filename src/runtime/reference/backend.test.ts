import { describe, expect, test } from "vitest";
import { decode, encode } from "../../base/dtype.ts";
import { ShapeError } from "../../base/errors.ts";
import { symbolic } from "../../base/shape.ts";
import { add, cast, constant, leaf, multiply, reduce, unary } from "../../graph/build.ts";
import { apply, buildGraph } from "../../graph/graph.ts";
import { withScope } from "../../graph/scope.ts";
import { createReferenceBackend } from "./backend.ts";
import { evaluate } from "./evaluate.ts";

const backend = createReferenceBackend();
const x = leaf("x", "input", [3], "f32");
const doubled = backend.compile(buildGraph("doubled", [{ name: "y", value: add(x, x) }]));

test("16-bit floats are decoded, computed in float64 and rounded once when stored", async () => {
  const h = leaf("h", "input", [2], "bf16");
  const third = multiply(h, constant([1 / 3], [1], "f64"));
  const executable = backend.compile(buildGraph("third", [{ name: "y", value: cast(third, "bf16") }]));
  const y = backend.allocate("bf16", 2);
  await executable.run({ h: encode("bf16", [3, 1]), y });
  // 1/3 to 8 bits is 171/512.
  expect([...decode("bf16", y)]).toEqual([1, 171 / 512]);
});

test("float leaves and outputs may be bound in float64", async () => {
  const y = new Float64Array(3);
  await doubled.run({ x: Float64Array.of(1e-9 + 1, 2, 3), y });
  expect([...y]).toEqual([2 + 2e-9, 4, 6]);
});

test("memory may be larger than the shape under the symbols of the run", async () => {
  const tokens = leaf("tokens", "input", [symbolic("count", 4), 2], "f32");
  const sums = reduce("sum", tokens, [1]);
  const executable = backend.compile(buildGraph("sums", [{ name: "y", value: sums }]));
  const y = new Float32Array(4).fill(-1);
  await executable.run({ tokens: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), y }, { count: 2 });
  expect([...y]).toEqual([3, 7, -1, -1]);
  await expect(executable.run({ tokens: new Float32Array(8), y }, { count: 5 })).rejects.toThrow(
    /from 0 to 4/,
  );
  await expect(executable.run({ tokens: new Float32Array(8), y })).rejects.toThrow(/"count" has no value/);
});

test("targets are written after every read, and added to where asked", async () => {
  const weight = leaf("weight", "parameter", [2], "f32");
  const total = leaf("total", "state", [2], "f32");
  const graph = buildGraph("update", [
    { name: "weight", value: multiply(weight, 10), target: weight },
    { name: "total", value: add(weight, 1), target: total, accumulate: true },
    { name: "before", value: weight },
  ]);
  const bindings = {
    weight: Float32Array.of(1, 2),
    total: Float32Array.of(100, 200),
    before: new Float32Array(2),
  };
  const executable = backend.compile(graph);
  await executable.run(bindings);
  await executable.run(bindings);
  expect([...bindings.weight]).toEqual([100, 200]);
  expect([...bindings.total]).toEqual([100 + 2 + 11, 200 + 3 + 21]);
  expect([...bindings.before]).toEqual([10, 20]);
});

test("what an op updates in place stays in its leaf, through two updates too", async () => {
  const cache = leaf("cache", "state", [3, 1], "f32");
  const row = (value: number) => constant([value], [1, 1]);
  const slot = (index: number) => constant([index], [1], "i32");
  const once = apply("cache_write", [cache, row(7), slot(0)], {});
  const twice = apply("cache_write", [once, row(8), slot(2)], {});
  const executable = backend.compile(
    buildGraph("cache", [{ name: "sum", value: reduce("sum", twice, [0, 1]) }]),
  );
  const bindings = { cache: Float32Array.of(1, 2, 3), sum: new Float32Array(1) };
  await executable.run(bindings);
  expect([...bindings.cache]).toEqual([7, 2, 8]);
  expect(bindings.sum[0]).toBe(17);
});

describe("wrong bindings", () => {
  const y = new Float32Array(3);
  test.each([
    [
      { y },
      /nothing is bound to "x"[\s\S]*Float32Array of at least 3 elements for f32\[3\][\s\S]*bindings of y/,
    ],
    [{ x: y }, /nothing is bound to "y"/],
    [{ x: new Float32Array(2), y }, /bound to "x" is too small[\s\S]*received: 2 elements/],
    [{ x: new Int32Array(3), y }, /bound to "x" is of another type[\s\S]*Float32Array[\s\S]*Int32Array/],
    [{ x: y, y: new Uint16Array(3) }, /bound to "y" is of another type/],
  ])("%#", async (bindings, message) => {
    const failure = doubled.run(bindings as never);
    await expect(failure).rejects.toThrow(ShapeError);
    await expect(failure).rejects.toThrow(message);
  });

  test("a Float64Array is no memory for integers", async () => {
    const ids = leaf("ids", "input", [1], "i32");
    const executable = backend.compile(buildGraph("ids", [{ name: "y", value: ids }]));
    await expect(executable.run({ ids: new Float64Array(1), y: new Int32Array(1) })).rejects.toThrow(
      /Int32Array/,
    );
  });
});

test("nothing is written where a run fails", async () => {
  const table = leaf("table", "parameter", [2, 1], "f32");
  const ids = leaf("ids", "input", [1], "i32");
  const graph = buildGraph("lookup", [
    { name: "doubled", value: multiply(table, 2), target: table },
    { name: "row", value: apply("gather", [table, ids], {}) },
  ]);
  const bindings = { table: Float32Array.of(1, 2), ids: Int32Array.of(2), row: new Float32Array(1) };
  await expect(backend.compile(graph).run(bindings)).rejects.toThrow(/gather: ids\[0\] is out of range/);
  expect([...bindings.table]).toEqual([1, 2]);
});

test("the first result that is not finite is named", async () => {
  const y = withScope("model.layers.0", () => unary("log", x));
  const executable = backend.compile(buildGraph("logarithm", [{ name: "z", value: add(y, 1) }]));
  const bindings = { x: Float32Array.of(1, 0, 2), z: new Float32Array(3) };
  await expect(executable.run(bindings, {}, { checkFinite: true })).rejects.toThrow(
    /elementwise gave a result that is not finite[\s\S]*model\.layers\.0[\s\S]*-Infinity at element 1/,
  );
  await executable.run(bindings);
  expect(bindings.z[1]).toBe(Number.NEGATIVE_INFINITY);
});

test("what is known before a run: memory and arithmetic", () => {
  expect(doubled.memory).toEqual({ arena: 6 * 8, prepared: 0, constants: 0, bound: 2 * 3 * 4, scratch: 0 });
  expect(doubled.flops).toBe(3);
});

test("a disposed executable does not run", async () => {
  const executable = backend.compile(buildGraph("once", [{ name: "y", value: add(x, 1) }]));
  executable.dispose();
  await expect(executable.run({ x: new Float32Array(3), y: new Float32Array(3) })).rejects.toThrow(
    /program once was disposed/,
  );
});

test("evaluate gives outputs by name, and names a leaf without values or with too few", () => {
  const graph = buildGraph("sum", [{ name: "y", value: add(x, 1) }]);
  const of = (...values: number[]) => new Map([["x", { shape: [3], values: Float64Array.from(values) }]]);
  expect(evaluate(graph, of(1, 2, 3)).get("y")).toEqual({ shape: [3], values: Float64Array.of(2, 3, 4) });
  expect(() => evaluate(graph, new Map())).toThrow(/leaf "x" has no value/);
  expect(() => evaluate(graph, of(1))).toThrow(
    /leaf "x" do not fill[\s\S]*3 values for \[3\][\s\S]*1 values/,
  );
});
