import { expect, test } from "vitest";
import { symbolic } from "../base/shape.ts";
import { add, constant, fill, leaf, matmul, multiply, reduce } from "./build.ts";
import { gradients } from "./gradient.ts";
import { apply, buildGraph } from "./graph.ts";
import { printGraph } from "./print.ts";
import { withScope } from "./scope.ts";

test("a layer with symbolic tokens", () => {
  const x = leaf("x", "input", [symbolic("tokens", 2048), 512], "bf16");
  const weight = leaf("layers.0.weight", "parameter", [64, 512], "bf16");
  const y = withScope("layers.0", () => {
    const product = matmul(x, weight, { transposeB: true });
    return withScope("norm", () => apply("rms_norm", [product, fill(1, [64], "f32")], { epsilon: 1e-5 }));
  });
  const { node } = y;
  const graph = buildGraph("layer", [
    { name: "y", value: y },
    { name: "scale", value: { node, index: 1 } },
  ]);
  expect(printGraph(graph)).toMatchInlineSnapshot(`
    "graph layer
    %0: bf16[tokens<=2048, 512] = leaf {name: "x", kind: input}
    %1: bf16[64, 512] = leaf {name: "layers.0.weight", kind: parameter}
    %2: bf16[tokens<=2048, 64] = matmul(%0, %1) {transposeB: true}  # layers.0
    %3: f32[64] = fill {value: 1}  # layers.0.norm
    %4: bf16[tokens<=2048, 64], f32[tokens<=2048] = rms_norm(%2, %3) {epsilon: 0.00001}  # layers.0.norm
    output y = %4.0
    output scale = %4.1"
  `);
});

test("attributes: constants are abbreviated, usual values left out, expressions written out", () => {
  const table = constant([1, 2.5, -3, 4, 5, 6, 7, 8], [8]);
  const short = constant([1, 2], [2], "i32");
  const expression = {
    inputs: 1,
    instructions: [
      { operation: "silu", operands: [0] },
      { operation: "constant", value: 2 },
      { operation: "multiply", operands: [1, 2] },
    ],
  } as const;
  const mapped = apply("map", [table], { expression, dtype: "bf16" });
  const q = leaf("q", "input", [2, 2, 4], "f32");
  const attended = apply("attention", [q, q, q, short], { scale: 0.5, causal: true, window: 0 });
  const graph = buildGraph("attributes", [
    { name: "mapped", value: mapped },
    { name: "rows", value: apply("gather", [table, short], {}) },
    { name: "attended", value: apply("slice", [attended], { starts: [0, 1, 0], sizes: [2, 1, 4] }) },
  ]);
  expect(printGraph(graph)).toMatchInlineSnapshot(`
    "graph attributes
    %0: f32[8] = constant {data: [1, 2.5, -3, 4, 5, 6, … 8 values]}
    %1: i32[2] = constant {data: [1, 2]}
    %2: bf16[8] = map(%0) {expression: multiply(silu(x0), 2)}
    %3: f32[2, 2, 4] = leaf {name: "q", kind: input}
    %4: f32[2, 2, 4], f32[2, 2] = attention(%3, %3, %3, %1) {scale: 0.5, causal: true}
    %5: f32[2] = gather(%0, %1)
    %6: f32[2, 1, 4] = slice(%4.0) {starts: [0, 1, 0]}
    output mapped = %2
    output rows = %5
    output attended = %6"
  `);
});

test("targets and the backward pass", () => {
  const weight = leaf("weight", "parameter", [3], "f32");
  const total = leaf("weight.gradient", "state", [3], "f32");
  const loss = withScope("loss", () => reduce("sum", multiply(weight, weight), [0]));
  const [gradient] = gradients(loss, [weight]);
  const graph = buildGraph("step", [
    { name: "loss", value: loss },
    { name: "weight.gradient", value: gradient!, target: total, accumulate: true },
    { name: "weight", value: add(weight, gradient!), target: weight },
  ]);
  expect(printGraph(graph)).toMatchInlineSnapshot(`
    "graph step
    %0: f32[3] = leaf {name: "weight", kind: parameter}
    %1: f32[3] = leaf {name: "weight.gradient", kind: state}
    %2: f32[3] = elementwise(%0, %0) {operation: multiply}  # loss
    %3: f32[] = reduce(%2) {reduction: sum, axes: [0]}  # loss
    %4: f32[] = fill {value: 1}
    %5: f32[1] = reshape(%4)  # loss, backward
    %6: f32[3] = broadcast(%5)  # loss, backward
    %7: f32[3] = elementwise(%6, %0) {operation: multiply}  # loss, backward
    %8: f32[3] = elementwise(%6, %0) {operation: multiply}  # loss, backward
    %9: f32[3] = elementwise(%7, %8) {operation: add}  # backward
    %10: f32[3] = elementwise(%0, %9) {operation: add}
    output loss = %3
    output weight.gradient = %9 added into %1
    output weight = %10 into %0"
  `);
});

test("the same program prints alike, whatever was recorded before it", () => {
  const build = (): string => {
    const x = leaf("x", "input", [2], "f32");
    return printGraph(buildGraph("g", [{ name: "y", value: add(x, 1) }]));
  };
  expect(build()).toBe(build());
});
