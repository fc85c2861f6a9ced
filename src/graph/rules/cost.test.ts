import { expect, test } from "vitest";
import { symbolic } from "../../base/shape.ts";
import { add, cast, leaf, matmul, reshape } from "../build.ts";
import { apply, buildGraph, type Value } from "../graph.ts";
import { costOf, graphCost } from "./cost.ts";
import { visiblePairs } from "./costs/attention.ts";

const input = (shape: Parameters<typeof leaf>[2], dtype: Parameters<typeof leaf>[3] = "f32"): Value =>
  leaf("x", "input", shape, dtype);

test("a product counts 2 M N K, in batches too, and its epilogue an operation an element each", () => {
  const plain = matmul(input([4, 6, 5]), input([5, 7]), {});
  expect(costOf(plain.node)).toEqual({
    flops: 2 * 4 * 6 * 7 * 5,
    bytes: 4 * (4 * 6 * 5 + 5 * 7 + 4 * 6 * 7),
  });
  const transposed = matmul(input([5, 6]), input([7, 5]), { transposeA: true, transposeB: true });
  expect(costOf(transposed.node).flops).toBe(2 * 6 * 7 * 5);
  const full = apply("matmul", [input([6, 5]), input([5, 7]), input([7]), input([6, 7])], {
    transposeA: false,
    transposeB: false,
    activation: "silu",
    bias: true,
    residual: true,
    dtype: "f32",
  });
  expect(costOf(full.node).flops).toBe(6 * 7 * (2 * 5 + 3));
});

test("symbols stand at their bounds unless they are given", () => {
  const { node } = matmul(input([symbolic("tokens", 100), 8], "bf16"), input([8, 2], "bf16"));
  expect(costOf(node).flops).toBe(2 * 100 * 8 * 2);
  expect(costOf(node, { tokens: 10 })).toEqual({ flops: 2 * 10 * 8 * 2, bytes: 2 * (80 + 16 + 20) });
  expect(() => costOf(node, { tokens: 101 })).toThrow(/does not fit its program/);
});

/** Counts by looking at every pair. */
function countPairs(length: number, causal: boolean, window: number): number {
  let pairs = 0;
  for (let query = 0; query < length; query++) {
    for (let key = 0; key < length; key++) {
      if (causal && key > query) continue;
      if (window > 0 && key <= query - window) continue;
      pairs++;
    }
  }
  return pairs;
}

test.each([
  [true, 0],
  [false, 0],
  [true, 3],
  [false, 3],
  [true, 1],
  [true, 50],
])("visible pairs, causal %s, window %i", (causal, window) => {
  for (const length of [1, 2, 7, 12]) {
    expect(visiblePairs(length, 1, { causal, window })).toBe(countPairs(length, causal, window));
    expect(visiblePairs(3 * length, 3, { causal, window })).toBe(3 * countPairs(length, causal, window));
  }
  expect(visiblePairs(0, 1, { causal, window })).toBe(0);
});

test("attention counts two products over visible pairs, its gradient five", () => {
  const q = input([8, 4, 16], "bf16");
  const k = input([8, 2, 16], "bf16");
  const offsets = input([3], "i32");
  const attributes = { scale: 1, causal: true, window: 0 };
  const forward = apply("attention", [q, k, k, offsets], attributes);
  // Two sequences of four tokens: 10 pairs each, in 4 heads of 16.
  expect(costOf(forward.node).flops).toBe(2 * (2 * 16) * 4 * 20);
  const results = [q, q, k, k, forward, { node: forward.node, index: 1 }, offsets];
  expect(costOf(apply("attention_gradient", results, attributes).node).flops).toBe(5 * (2 * 16) * 4 * 20);
});

test("a paged cache is read once a sequence, a quantized one with its scales", () => {
  const [q, integers] = [input([3, 4, 16]), (shape: number[]) => input(shape, "i32")];
  const batch = [integers([3]), integers([2]), integers([2, 5])];
  const attributes = { scale: 1, window: 0, blockSize: 8 };
  const cost = (dtype: "bf16" | "i8", scales: readonly Value[]) => {
    const cache = input([80, 2, 16], dtype);
    return costOf(apply("paged_attention", [q, cache, cache, ...batch, ...scales], attributes).node);
  };
  const others = 2 * (3 * 4 * 16) * 4 + 2 * 4 + 10 * 4;
  // Two sequences of 40 tokens, keys and values of 2 heads of 16; 3 queries of 4 heads see 40 tokens each.
  expect(cost("bf16", [])).toEqual({ flops: 4 * (3 * 4 * 16) * 40, bytes: others + 2 * (80 * 32) * 2 });
  const scales = input([80, 2]);
  expect(cost("i8", [scales, scales]).bytes).toBe(others + 2 * (80 * 32) + 2 * (80 * 2) * 4);
});

test("a loss on a product counts the product once, its gradient three times", () => {
  const operands = [input([6, 5]), input([9, 5]), input([6], "i32")];
  const forward = apply("linear_cross_entropy", operands, {});
  expect(costOf(forward.node).flops).toBe(6 * 9 * (2 * 5 + 2));
  const backward = apply("linear_cross_entropy_gradient", [forward, ...operands], {});
  expect(costOf(backward.node).flops).toBe(3 * 6 * 9 * (2 * 5 + 2));
});

test("views are free, copies move bytes, look-ups move only what they look up", () => {
  const x = input([10, 4]);
  expect(costOf(x.node)).toEqual({ flops: 0, bytes: 0 });
  expect(costOf(reshape(x, [40]).node)).toEqual({ flops: 0, bytes: 0 });
  expect(costOf(cast(x, "bf16").node)).toEqual({ flops: 0, bytes: 40 * 4 + 40 * 2 });
  expect(costOf(add(x, x).node)).toEqual({ flops: 40, bytes: 3 * 40 * 4 });
  const ids = input([3], "i32");
  expect(costOf(apply("embedding", [x, ids], { dtype: "bf16" }).node)).toEqual({
    flops: 0,
    bytes: 3 * 4 * 4 + 3 * 4 + 3 * 4 * 2,
  });
});

test("the cost of a graph is that of its nodes", () => {
  const x = input([10, 4]);
  const graph = buildGraph("g", [{ name: "y", value: cast(add(x, x), "bf16") }]);
  expect(graphCost(graph)).toEqual({ flops: 40, bytes: 3 * 40 * 4 + 40 * 6 });
});
