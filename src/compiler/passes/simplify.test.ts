import { expect, test } from "vitest";
import { encode } from "../../base/dtype.ts";
import { symbolic } from "../../base/shape.ts";
import * as build from "../../graph/build.ts";
import { apply, buildGraph, type Value } from "../../graph/graph.ts";
import { printGraph } from "../../graph/print.ts";
import { removeDeadCode } from "./dead_code.ts";
import { simplify } from "./simplify.ts";

const x = build.leaf("x", "input", [2, 3], "f32");

function simplified(value: Value): string {
  return printGraph(removeDeadCode(simplify(buildGraph("g", [{ name: "y", value }]))));
}

/** Whether nothing but the leaf is left. */
function vanishes(value: Value): boolean {
  return removeDeadCode(simplify(buildGraph("g", [{ name: "y", value }]))).nodes.length === 1;
}

test("only neutral operands that change no bit vanish", () => {
  expect(vanishes(build.multiply(x, 1))).toBe(true);
  expect(vanishes(build.multiply(build.scalar(1), x))).toBe(true);
  expect(vanishes(build.divide(x, 1))).toBe(true);
  expect(vanishes(build.binary("power", x, 1))).toBe(true);
  expect(vanishes(build.subtract(x, 0))).toBe(true);
  expect(vanishes(build.add(x, -0))).toBe(true);
  expect(vanishes(build.add(build.scalar(-0), x))).toBe(true);
  // -0 + 0 and -0 - -0 are 0; 0 * NaN is NaN; 1 / x is not x.
  expect(vanishes(build.add(x, 0))).toBe(false);
  expect(vanishes(build.subtract(x, -0))).toBe(false);
  expect(vanishes(build.multiply(x, 0))).toBe(false);
  expect(vanishes(build.divide(build.scalar(1), x))).toBe(false);
});

test("a neutral operand that stretches or converts its partner stays", () => {
  expect(vanishes(build.multiply(x, build.fill(1, [4, 2, 3], "f32")))).toBe(false);
  const half = build.leaf("h", "input", [3], "bf16");
  expect(vanishes(build.multiply(half, build.fill(1, [3], "f32")))).toBe(false);
  expect(vanishes(build.multiply(half, 1))).toBe(true);
});

test("constants fold, with the signs of zeros and NaN kept", () => {
  const value = build.multiply(build.constant([0, 0, 2], [3]), build.constant([-1, 1, 0.25], [3]));
  expect(simplified(value)).toMatchInlineSnapshot(`
    "graph g
    %0: f32[3] = constant {data: [0, 0, 0.5]}
    output y = %0"
  `);
  expect(simplified(build.unary("log", build.fill(-1, [2], "f32")))).toMatchInlineSnapshot(`
    "graph g
    %0: f32[2] = fill {value: NaN}
    output y = %0"
  `);
  const zeros = build.multiply(build.constant([0, 0], [2]), build.constant([-1, 1], [2]));
  const graph = simplify(buildGraph("g", [{ name: "y", value: zeros }]));
  const { node } = graph.outputs[0]!.value;
  expect(node.op).toBe("constant");
  expect("data" in node.attributes && node.attributes.data).toEqual(encode("f32", [-0, 0]));
});

test("movements of constants fold", () => {
  const rows = build.constant([1, 2, 3, 4, 5, 6], [2, 3]);
  const sliced = apply("slice", [build.transpose(rows, [1, 0])], { starts: [1, 0], sizes: [2, 2] });
  expect(simplified(build.reduce("sum", sliced, [1]))).toMatchInlineSnapshot(`
    "graph g
    %0: f32[2] = constant {data: [7, 9]}
    output y = %0"
  `);
});

test("large and symbolic constants are left to run time", () => {
  const large = build.unary("negate", build.constant(new Float32Array(5000), [5000]));
  expect(simplified(large)).toContain("elementwise");
  const tokens = build.unary("negate", build.fill(2, [symbolic("tokens", 8)], "f32"));
  expect(simplified(tokens)).toContain("elementwise");
});

test("casts behind wider casts vanish, narrowing ones stay", () => {
  const half = build.leaf("h", "input", [3], "bf16");
  expect(vanishes(build.cast(build.cast(half, "f32"), "bf16"))).toBe(true);
  expect(simplified(build.cast(build.cast(x, "bf16"), "f32"))).toMatchInlineSnapshot(`
    "graph g
    %0: f32[2, 3] = leaf {name: "x", kind: input}
    %1: bf16[2, 3] = cast(%0)
    %2: f32[2, 3] = cast(%1)
    output y = %2"
  `);
  expect(simplified(build.cast(build.cast(half, "f32"), "f16"))).toMatchInlineSnapshot(`
    "graph g
    %0: bf16[3] = leaf {name: "h", kind: input}
    %1: f16[3] = cast(%0)
    output y = %1"
  `);
});

test("chains of reshapes become one, and none where the shape comes back", () => {
  const there = build.reshape(build.reshape(x, [6]), [3, 2]);
  expect(simplified(there)).toMatchInlineSnapshot(`
    "graph g
    %0: f32[2, 3] = leaf {name: "x", kind: input}
    %1: f32[3, 2] = reshape(%0)
    output y = %1"
  `);
  expect(vanishes(build.reshape(there, [2, 3]))).toBe(true);
});

test("products take over the transposes of their operands", () => {
  const y = build.leaf("y", "input", [5, 3], "f32");
  expect(simplified(build.matmul(x, build.transpose(y, [1, 0])))).toMatchInlineSnapshot(`
    "graph g
    %0: f32[2, 3] = leaf {name: "x", kind: input}
    %1: f32[5, 3] = leaf {name: "y", kind: input}
    %2: f32[2, 5] = matmul(%0, %1) {transposeB: true}
    output y = %2"
  `);
  const z = build.leaf("z", "input", [3, 4], "f32");
  expect(
    simplified(build.matmul(build.transpose(z, [1, 0]), build.transpose(x, [1, 0]))),
  ).toMatchInlineSnapshot(`
    "graph g
    %0: f32[2, 3] = leaf {name: "x", kind: input}
    %1: f32[3, 4] = leaf {name: "z", kind: input}
    %2: f32[4, 2] = matmul(%1, %0) {transposeA: true, transposeB: true}
    output y = %2"
  `);
});
