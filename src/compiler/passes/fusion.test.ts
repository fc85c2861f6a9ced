import { describe, expect, test } from "vitest";
import * as build from "../../graph/build.ts";
import { gradients } from "../../graph/gradient.ts";
import { apply, buildGraph, type Graph, type GraphOutput, type Value } from "../../graph/graph.ts";
import { printGraph } from "../../graph/print.ts";
import { inScope } from "../../graph/scope.ts";
import { verifyGraph } from "../../graph/verify.ts";
import { mergeCommonSubexpressions } from "./common_subexpressions.ts";
import { removeDeadCode } from "./dead_code.ts";
import { fuseElementwise } from "./fuse_elementwise.ts";
import { fuseLossIntoGradient } from "./fuse_loss.ts";
import { fuseMatmulEpilogues } from "./matmul_epilogue.ts";
import { packWeights } from "./pack_weights.ts";
import { rewrite } from "./rewrite.ts";
import { splitStoredSums } from "./split_sums.ts";

/** What each pass makes of a small graph, as text. */
function after(pass: (graph: Graph) => Graph, ...outputs: (Value | GraphOutput)[]): string {
  const named = outputs.map((output, index) =>
    "node" in output ? { name: `y${index}`, value: output } : output,
  );
  const graph = removeDeadCode(pass(buildGraph("g", named)));
  verifyGraph(graph);
  return printGraph(graph);
}

const f32 = (name: string, ...shape: number[]) => build.leaf(name, "input", shape, "f32");
const bf16 = (name: string, ...shape: number[]) => build.leaf(name, "input", shape, "bf16");
const parameter = (name: string, ...shape: number[]) => build.leaf(name, "parameter", shape, "f32");
const [x, w] = [f32("x", 4, 8), f32("w", 8, 8)];

describe("fuse elementwise", () => {
  test("a chain becomes one map that rounds where values would have been stored", () => {
    const [gate, up] = [bf16("gate", 2, 3), bf16("up", 2, 3)];
    expect(after(fuseElementwise, build.multiply(build.unary("silu", gate), up))).toMatchInlineSnapshot(`
      "graph g
      %0: bf16[2, 3] = leaf {name: "gate", kind: input}
      %1: bf16[2, 3] = leaf {name: "up", kind: input}
      %2: bf16[2, 3] = map(%0, %1) {expression: multiply(round_bf16(silu(x0)), x1)}
      output y0 = %2"
    `);
  });

  test("constants and broadcasts are read where they are used", () => {
    const scaled = build.multiply(f32("a", 2, 3), build.fill(0.1, [2, 3], "f32"));
    const spread = build.broadcast(f32("b", 3), [2, 3]);
    expect(after(fuseElementwise, build.add(scaled, spread))).toMatchInlineSnapshot(`
      "graph g
      %0: f32[2, 3] = leaf {name: "a", kind: input}
      %1: f32[3] = leaf {name: "b", kind: input}
      %2: f32[2, 3] = map(%0, %1) {expression: add(multiply(x0, 0.10000000149011612), x1)}
      output y0 = %2"
    `);
  });

  test("broadcasts that give the shape stay", () => {
    const spread = build.broadcast(f32("b", 3), [2, 3]);
    expect(after(fuseElementwise, build.unary("exp", spread))).toMatchInlineSnapshot(`
      "graph g
      %0: f32[3] = leaf {name: "b", kind: input}
      %1: f32[2, 3] = broadcast(%0)
      %2: f32[2, 3] = map(%1) {expression: exp(x0)}
      output y0 = %2"
    `);
  });

  test("what another op reads is stored once and not inlined", () => {
    const shared = build.unary("tanh", f32("a", 2, 3));
    expect(
      after(fuseElementwise, build.unary("exp", shared), build.reduce("sum", shared, [0])),
    ).toMatchInlineSnapshot(`
      "graph g
      %0: f32[2, 3] = leaf {name: "a", kind: input}
      %1: f32[2, 3] = map(%0) {expression: tanh(x0)}
      %2: f32[2, 3] = map(%1) {expression: exp(x0)}
      %3: f32[3] = reduce(%1) {reduction: sum, axes: [0]}
      output y0 = %2
      output y1 = %3"
    `);
  });

  test("a gradient does not keep two operands where one result would do", () => {
    const [a, b] = [build.unary("exp", f32("a", 3)), build.reduce("sum", f32("b", 2, 3), [0])];
    const sum = build.add(build.reduce("sum", build.broadcast(a, [2, 3]), [0]), b);
    const late = inScope({ name: "", block: undefined, phase: "backward" }, () => build.unary("tanh", sum));
    expect(after(fuseElementwise, late)).toContain("%7: f32[3] = map(%6) {expression: tanh(x0)}  # backward");
  });

  test("long expressions end in several maps", () => {
    let value: Value = f32("a", 3);
    for (let index = 0; index < 40; index++) value = build.unary("sin", value);
    const graph = removeDeadCode(fuseElementwise(buildGraph("g", [{ name: "y", value }])));
    const lengths = graph.nodes.flatMap((node) =>
      node.op === "map" ? [node.attributes.expression.instructions.length] : [],
    );
    expect(lengths).toEqual([32, 8]);
  });
});

describe("fuse matmul epilogues", () => {
  test("bias, activation and residual", () => {
    const biased = build.add(build.matmul(x, w), f32("b", 8));
    const value = build.add(f32("r", 4, 8), build.unary("gelu", biased));
    expect(after(fuseMatmulEpilogues, value)).toMatchInlineSnapshot(`
      "graph g
      %0: f32[4, 8] = leaf {name: "x", kind: input}
      %1: f32[8, 8] = leaf {name: "w", kind: input}
      %2: f32[8] = leaf {name: "b", kind: input}
      %3: f32[4, 8] = leaf {name: "r", kind: input}
      %4: f32[4, 8] = matmul(%0, %1, %2, %3) {activation: gelu, bias: true, residual: true}
      output y0 = %4"
    `);
  });

  test("a product that something else reads stays plain", () => {
    const product = build.matmul(x, w);
    const text = after(fuseMatmulEpilogues, build.unary("silu", product), product);
    expect(text).toContain("elementwise");
  });

  test("an activation behind a residual is not an epilogue", () => {
    const value = build.unary("relu", build.add(build.matmul(x, w), f32("r", 4, 8)));
    expect(after(fuseMatmulEpilogues, value)).toMatchInlineSnapshot(`
      "graph g
      %0: f32[4, 8] = leaf {name: "x", kind: input}
      %1: f32[8, 8] = leaf {name: "w", kind: input}
      %2: f32[4, 8] = leaf {name: "r", kind: input}
      %3: f32[4, 8] = matmul(%0, %1, %2) {residual: true}
      %4: f32[4, 8] = elementwise(%3) {operation: relu}
      output y0 = %4"
    `);
  });

  test("a sum that stretches the product stays", () => {
    expect(after(fuseMatmulEpilogues, build.add(build.matmul(x, w), f32("r", 2, 4, 8)))).toContain(
      "elementwise",
    );
  });
});

describe("fuse the loss into its gradient", () => {
  const [hidden, weight] = [f32("hidden", 5, 4), parameter("weight", 7, 4)];
  const targets = build.leaf("targets", "input", [5], "i32");
  const losses = apply("linear_cross_entropy", [hidden, weight, targets], {});

  test("losses come from the gradient, which runs in their place", () => {
    const loss = build.reduce("sum", losses, [0]);
    const [dWeight] = gradients(loss, [weight]);
    expect(after(fuseLossIntoGradient, loss, dWeight!)).toMatchInlineSnapshot(`
      "graph g
      %0: f32[5, 4] = leaf {name: "hidden", kind: input}
      %1: f32[7, 4] = leaf {name: "weight", kind: parameter}
      %2: i32[5] = leaf {name: "targets", kind: input}
      %3: f32[] = fill {value: 1}
      %4: f32[1] = reshape(%3)  # backward
      %5: f32[5] = broadcast(%4)  # backward
      %6: f32[5], f32[5, 4], f32[7, 4] = linear_cross_entropy_gradient(%5, %0, %1, %2)  # backward
      %7: f32[] = reduce(%6.0) {reduction: sum, axes: [0]}
      output y0 = %7
      output y1 = %6.2"
    `);
  });

  test("a gradient that depends on the losses cannot make them", () => {
    const squares = build.multiply(losses, losses);
    const loss = build.reduce("sum", squares, [0]);
    expect(after(fuseLossIntoGradient, loss, gradients(loss, [weight])[0]!)).toContain(
      "= linear_cross_entropy(",
    );
  });
});

describe("split stored sums", () => {
  const target = build.leaf("t", "state", [4, 8], "f32");

  test("terms are stored in the order in which they are made", () => {
    const sum = build.add(build.matmul(x, w), build.unary("tanh", x));
    expect(after(splitStoredSums, { name: "t", value: sum, target })).toMatchInlineSnapshot(`
      "graph g
      %0: f32[4, 8] = leaf {name: "x", kind: input}
      %1: f32[8, 8] = leaf {name: "w", kind: input}
      %2: f32[4, 8] = leaf {name: "t", kind: state}
      %3: f32[4, 8] = matmul(%0, %1)
      %4: f32[4, 8] = elementwise(%0) {operation: tanh}
      output t = %3 into %2
      output t = %4 added into %2"
    `);
  });

  test("what the leaf holds comes first", () => {
    // The leaf is younger than the product.
    const product = build.matmul(x, w);
    const young = build.leaf("t", "state", [4, 8], "f32");
    expect(
      after(splitStoredSums, { name: "t", value: build.add(product, young), target: young }),
    ).toMatchInlineSnapshot(`
      "graph g
      %0: f32[4, 8] = leaf {name: "x", kind: input}
      %1: f32[8, 8] = leaf {name: "w", kind: input}
      %2: f32[4, 8] = matmul(%0, %1)
      %3: f32[4, 8] = leaf {name: "t", kind: state}
      output t = %3 into %3
      output t = %2 added into %3"
    `);
  });

  test("terms of another dtype, sums that are read, and 16-bit leaves stay whole", () => {
    const mixed = build.add(build.matmul(x, w), bf16("h", 4, 8));
    expect(after(splitStoredSums, { name: "t", value: mixed, target })).toContain("output t = %5 into");
    const read = build.add(x, build.matmul(x, w));
    expect(after(splitStoredSums, { name: "t", value: read, target }, build.unary("exp", read))).toContain(
      "add}",
    );
    const narrow = build.leaf("n", "state", [4], "bf16");
    const sum = build.add(bf16("a", 4), bf16("b", 4));
    expect(after(splitStoredSums, { name: "n", value: sum, target: narrow })).toContain("add}");
  });
});

describe("pack weights", () => {
  test("a product with a parameter reads its panels, packed behind the cast", () => {
    const weight = parameter("weight", 6, 8);
    const value = build.matmul(bf16("h", 4, 8), build.cast(weight, "bf16"), { transposeB: true });
    expect(after(packWeights, value)).toMatchInlineSnapshot(`
      "graph g
      %0: f32[6, 8] = leaf {name: "weight", kind: parameter}
      %1: bf16[4, 8] = leaf {name: "h", kind: input}
      %2: u8[2048] = pack_matrix(%0) {transposeB: true, elements: bf16}
      %3: bf16[4, 6] = matmul_packed(%1, %2) {columns: 6, elements: bf16}
      output y0 = %3"
    `);
  });

  test("a cast that rounds otherwise than packing stays", () => {
    const rounded = build.cast(parameter("weight", 8, 6), "bf16");
    const text = after(packWeights, build.matmul(x, rounded));
    expect(text).toContain("cast(%1)");
    expect(text).toContain("pack_matrix(%2) {elements: f32}");
  });

  test("products with what is no parameter stay", () => {
    expect(after(packWeights, build.matmul(x, w))).not.toContain("pack");
    expect(after(packWeights, build.matmul(x, parameter("p", 4, 8), { transposeA: true }))).not.toContain(
      "pack",
    );
  });
});

describe("merge common subexpressions", () => {
  test("equal work is done once", () => {
    const value = build.add(build.unary("exp", x), build.unary("exp", x));
    expect(after(mergeCommonSubexpressions, value)).toMatchInlineSnapshot(`
      "graph g
      %0: f32[4, 8] = leaf {name: "x", kind: input}
      %1: f32[4, 8] = elementwise(%0) {operation: exp}
      %2: f32[4, 8] = elementwise(%1, %1) {operation: add}
      output y0 = %2"
    `);
  });

  test("numbers that JSON cannot tell apart stay apart", () => {
    const values = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    const text = after(mergeCommonSubexpressions, ...values.map((value) => build.fill(value, [2], "f32")));
    expect(text.match(/= fill/g)).toHaveLength(5);
  });

  test("memory that is updated in place is not shared", () => {
    const update = () =>
      apply(
        "sgd",
        [build.fill(1, [4], "f32"), f32("g", 4), build.leaf("m", "state", [4], "f32"), f32("h", 6)],
        {},
      );
    const text = after((graph) => mergeCommonSubexpressions(graph), update(), build.fill(1, [4], "f32"));
    expect(text.match(/= fill/g)).toHaveLength(2);
  });
});

describe("the rewrite engine", () => {
  test("replacements run where the replaced node ran, and their operands before them", () => {
    const graph = buildGraph("g", [{ name: "y", value: build.unary("exp", build.unary("sin", x)) }]);
    const doubled = rewrite(graph, (node, inputs) =>
      node.op === "elementwise" ? [build.multiply(build.add(inputs[0]!, 1), 2)] : undefined,
    );
    verifyGraph(doubled);
    expect(printGraph(doubled)).toMatchInlineSnapshot(`
      "graph g
      %0: f32[4, 8] = leaf {name: "x", kind: input}
      %1: f32[] = fill {value: 1}
      %2: f32[4, 8] = elementwise(%0, %1) {operation: add}
      %3: f32[] = fill {value: 2}
      %4: f32[4, 8] = elementwise(%2, %3) {operation: multiply}
      %5: f32[] = fill {value: 1}
      %6: f32[4, 8] = elementwise(%4, %5) {operation: add}
      %7: f32[] = fill {value: 2}
      %8: f32[4, 8] = elementwise(%6, %7) {operation: multiply}
      output y = %8"
    `);
  });

  test("a visitor must replace every result", () => {
    const norm = apply("rms_norm", [x, f32("n", 8)], { epsilon: 1e-5 });
    const graph = buildGraph("g", [{ name: "y", value: norm }]);
    expect(() => rewrite(graph, (node) => (node.op === "rms_norm" ? [x] : undefined))).toThrow(
      /internal: rms_norm was replaced by 1 values[\s\S]*2, one for each/,
    );
  });
});
