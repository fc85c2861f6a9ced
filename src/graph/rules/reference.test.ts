import { describe, expect, test } from "vitest";
import { PhiloxStream } from "../../base/random.ts";
import { constant, fill } from "../build.ts";
import { type AnyNode, createNode, type Value } from "../graph.ts";
import type { OpAttributes, OpName } from "../ops.ts";
import { evaluateNode, type ReferenceTensor, referenceRules } from "./reference.ts";
import { erf } from "./references/mathematics.ts";

/** Expectations here are calculated by hand or published; gradients are held to central differences in test/. */
const t = (shape: readonly number[], ...values: number[]): ReferenceTensor => ({
  shape,
  values: Float64Array.from(values),
});

function run<Op extends OpName>(
  op: Op,
  inputs: readonly ReferenceTensor[],
  attributes: OpAttributes[Op],
  ...shapes: readonly (readonly number[])[]
): number[][] {
  return referenceRules[op](inputs, attributes, shapes).map((values) => [...values]);
}

const matrix = t([2, 3], 1, 2, 3, 4, 5, 6);

test.each([
  // Abramowitz and Stegun, table 7.1.
  [0.5, 0.5204998778],
  [1, 0.8427007929],
  [2, 0.995322265],
  [3.5, 0.999999257],
])("erf(%d)", (x, expected) => {
  expect(erf(x)).toBeCloseTo(expected, 9);
  expect(erf(-x)).toBe(-erf(x));
});

test("erf at its ends", () => {
  expect([erf(0), erf(7), erf(-Infinity)]).toEqual([0, 1, -1]);
  expect(erf(5.999)).toBeCloseTo(1, 14);
  expect(erf(Number.NaN)).toBeNaN();
});

describe("movement", () => {
  test("transpose, broadcast, slice, pad_into, concatenate", () => {
    expect(run("transpose", [matrix], { permutation: [1, 0] }, [3, 2])).toEqual([[1, 4, 2, 5, 3, 6]]);
    expect(run("broadcast", [t([2, 1], 7, 8)], { shape: [2, 2] }, [2, 2])).toEqual([[7, 7, 8, 8]]);
    expect(run("slice", [matrix], { starts: [0, 1], sizes: [2, 2] }, [2, 2])).toEqual([[2, 3, 5, 6]]);
    expect(run("pad_into", [t([1, 2], 8, 9)], { starts: [1, 0], shape: [2, 3] }, [2, 3])).toEqual([
      [0, 0, 0, 8, 9, 0],
    ]);
    expect(run("concatenate", [matrix, t([2, 1], 7, 8)], { axis: 1 }, [2, 4])).toEqual([
      [1, 2, 3, 7, 4, 5, 6, 8],
    ]);
  });

  test("axes permuted in three dimensions", () => {
    const x = t([2, 1, 3], 1, 2, 3, 4, 5, 6);
    expect(run("transpose", [x], { permutation: [2, 0, 1] }, [3, 2, 1])).toEqual([[1, 4, 2, 5, 3, 6]]);
  });

  test("reductions, over an empty axis too", () => {
    expect(run("reduce", [matrix], { reduction: "sum", axes: [0], keep: false }, [3])).toEqual([[5, 7, 9]]);
    expect(run("reduce", [matrix], { reduction: "maximum", axes: [1], keep: true }, [2, 1])).toEqual([
      [3, 6],
    ]);
    const empty = t([2, 0]);
    expect(run("reduce", [empty], { reduction: "sum", axes: [1], keep: false }, [2])).toEqual([[0, 0]]);
    expect(run("argmax", [t([2, 3], 1, 5, 5, -1, -2, -1)], {}, [2])).toEqual([[1, 0]]);
  });

  test("rows by id, and their sums", () => {
    expect(run("gather", [matrix, t([3], 1, 0, 1)], {}, [3, 3])).toEqual([[4, 5, 6, 1, 2, 3, 4, 5, 6]]);
    expect(run("scatter_add", [matrix, t([2], 1, 1)], { rows: 3 }, [3, 3])).toEqual([
      [0, 0, 0, 5, 7, 9, 0, 0, 0],
    ]);
  });
});

describe("what is rounded, and what is not", () => {
  test("casts to integers truncate and wrap; casts to 16 bits keep every digit", () => {
    expect(run("cast", [t([3], 1.9, -1.9, 300)], { dtype: "i32" }, [3])).toEqual([[1, -1, 300]]);
    expect(run("cast", [t([1], 300)], { dtype: "u8" }, [1])).toEqual([[44]]);
    expect(run("cast", [t([1], 1.0001)], { dtype: "bf16" }, [1])).toEqual([[1.0001]]);
  });

  test("a map rounds where it says so", () => {
    const expression = {
      inputs: 1,
      instructions: [
        { operation: "round_bf16", operands: [0] },
        { operation: "add", operands: [0, 1] },
      ],
    } as const;
    // bf16 holds 8 bits: 1 + 2^-8 is a tie that goes to 1.
    const x = 1 + 2 ** -8;
    expect(run("map", [t([1], x)], { expression, dtype: "f32" }, [1])).toEqual([[x + 1]]);
  });

  test("constant nodes are evaluated from their constants", () => {
    const evaluate = (operation: "multiply" | "power", ...operands: Value[]): number[] => [
      ...evaluateNode(createNode("elementwise", operands, { operation }) as AnyNode, operands)[0]!,
    ];
    expect(evaluate("power", constant([1, 2, 3], [3]), fill(2, [], "f32"))).toEqual([1, 4, 9]);
    // Integers stay integers.
    expect(evaluate("multiply", constant([3, -3], [2], "i32"), fill(0.5, [], "f32"))).toEqual([1, -1]);
  });
});

describe("random", () => {
  const seed = t([2], 42, 7);
  const draw = (distribution: "uniform" | "normal", stream: number): number[] =>
    run("random", [seed], { distribution, stream, shape: [5] }, [5])[0]!;

  test("draws the stream under the key (seed, step)", () => {
    const stream = new PhiloxStream(42 + 7 * 2 ** 32, 3);
    expect(draw("uniform", 3)).toEqual(Array.from({ length: 5 }, () => stream.nextFloat()));
    stream.position = 0;
    expect(draw("normal", 3)).toEqual(Array.from({ length: 5 }, () => stream.nextNormal()));
    expect(draw("uniform", 4)).not.toEqual(draw("uniform", 3));
  });
});

describe("matrix products", () => {
  const plain = { activation: "none", bias: false, residual: false, dtype: "f32" } as const;

  test("transposes, batches and epilogues", () => {
    const b = t([3, 2], 1, 0, 0, 1, 1, 1);
    const straight = { ...plain, transposeA: false, transposeB: false };
    expect(run("matmul", [matrix, b], straight, [2, 2])).toEqual([[4, 5, 10, 11]]);
    const both = { ...plain, transposeA: true, transposeB: true };
    expect(run("matmul", [matrix, t([1, 2], 1, -1)], both, [3, 1])).toEqual([[-3, -3, -3]]);
    const batches = t([2, 1, 2], 1, 2, 3, 4);
    expect(run("matmul", [batches, t([2, 2, 1], 1, 1, 2, 3)], straight, [2, 1, 1])).toEqual([[3, 18]]);
    expect(run("matmul", [batches, t([2, 1], 1, 10)], straight, [2, 1, 1])).toEqual([[21, 43]]);
    const epilogue = { ...straight, activation: "relu", bias: true, residual: true } as const;
    const extra = [t([2], -5, 1), t([2, 2], 0.5, 0.5, 0.5, 0.5)];
    expect(run("matmul", [matrix, b, ...extra], epilogue, [2, 2])).toEqual([[0.5, 6.5, 5.5, 12.5]]);
  });

  test("the loss of equal logits is the log of the vocabulary", () => {
    const operands = [t([2, 1], 0, 0), t([4, 1], 1, 2, 3, 4), t([2], 3, -1)];
    expect(run("linear_cross_entropy", operands, {}, [2])).toEqual([[Math.log(4), 0]]);
  });
});

describe("rows", () => {
  test("norms", () => {
    const x = t([1, 2], 3, 4);
    const [y, inverse] = run("rms_norm", [x, t([2], 1, 2)], { epsilon: 0 }, [1, 2], [1]);
    expect(inverse![0]).toBeCloseTo(1 / Math.sqrt(12.5), 15);
    expect(y![1]).toBeCloseTo(8 / Math.sqrt(12.5), 15);
    const layer = { epsilon: 0, bias: true };
    const results = run("layer_norm", [x, t([2], 1, 1), t([2], 0, 10)], layer, [1, 2], [1], [1]);
    expect(results).toEqual([[-1, 11], [3.5], [2]]);
  });

  test("rotary pairs turn by position times frequency", () => {
    const x = t([1, 1, 4], 1, 2, 3, 4);
    const operands = [x, t([1], 1), t([2], Math.PI / 2, Math.PI)];
    const rotate = (interleaved: boolean): number[] =>
      run("rope", operands, { inverse: false, interleaved }, [1, 1, 4])[0]!.map((value) => Math.round(value));
    // A quarter turn takes (a, b) to (-b, a), half a turn to (-a, -b).
    expect(rotate(false)).toEqual([-3, -2, 1, -4]);
    expect(rotate(true)).toEqual([-2, 1, -3, -4]);
  });

  test("softmax far from 0", () => {
    const [y] = run("softmax", [t([1, 2], 1000, 1000 + Math.log(3))], {}, [1, 2]);
    expect(y![0]).toBeCloseTo(0.25, 12);
  });
});

describe("the cache and its pages", () => {
  test("writes go to their slots, -1 nowhere", () => {
    const cache = t([3, 1, 1], 1, 2, 3);
    expect(run("cache_write", [cache, t([2, 1, 1], 8, 9), t([2], 2, -1)], {}, [3, 1, 1])).toEqual([
      [1, 2, 8],
    ]);
    expect([...cache.values]).toEqual([1, 2, 3]);
  });

  test("quantized rows are whole multiples of their largest magnitude / 127, halves to even", () => {
    const cache = t([2, 2, 3], ...new Array(12).fill(9));
    const values = t([1, 2, 3], -2, 1, 0.5, 0, 0, 0);
    const results = run(
      "cache_write_quantized",
      [cache, t([2, 2], 5, 6, 7, 8), values, t([1], 1)],
      {},
      [2, 2, 3],
      [2, 2],
    );
    // 1 and 0.5 are 63.5 and 31.75 times 2 / 127.
    expect(results).toEqual([
      [9, 9, 9, 9, 9, 9, -127, 64, 32, 0, 0, 0],
      [5, 6, 2 / 127, 0],
    ]);
    expect([...cache.values]).toEqual(new Array(12).fill(9));
  });

  test("a quantized cache means its whole numbers times their scales", () => {
    const whole = t([4, 1, 1], 6, 8, 2, 4);
    const operands = [
      t([1, 1, 1], 1),
      t([4, 1, 1], 0, 0, 0, 0),
      whole,
      t([2], 0, 1),
      t([1], 3),
      t([1, 2], 1, 0),
    ];
    const scales = [t([4, 1], 1, 1, 1, 1), t([4, 1], 10, 7, 3, 6)];
    const attributes = { scale: 1, window: 0, blockSize: 2 };
    // The mean of 2 * 3, 4 * 6 and 6 * 10.
    expect(run("paged_attention", [...operands, ...scales], attributes, [1, 1, 1])).toEqual([[30]]);
    // Scores of ln 2 * 1 and 0: weights of 2 / 3 and 1 / 3.
    const keys = t([4, 1, 1], 0, 0, 4, 0);
    const scaled = [operands[0]!, keys, whole, t([2], 0, 1), t([1], 2), t([1, 2], 1, 0)];
    const [result] = run(
      "paged_attention",
      [...scaled, t([4, 1], 1, 1, Math.log(2) / 4, 1), t([4, 1], 1, 1, 3, 3)],
      attributes,
      [1, 1, 1],
    );
    expect(result![0]).toBeCloseTo((2 * 6 + 12) / 3, 14);
  });

  test("blocks are copied one after the other, -1 nowhere", () => {
    const cache = t([7, 1], 1, 2, 3, 4, 5, 6, 7);
    const copy = (sources: number[], destinations: number[]) =>
      run("cache_copy", [cache, t([3], ...sources), t([3], ...destinations)], { blockSize: 2 }, [7, 1]);
    expect(copy([0, 1, 2], [1, 2, -1])).toEqual([[1, 2, 1, 2, 1, 2, 7]]);
    expect([...cache.values]).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  test("queries are the last tokens of their context and see what is before them", () => {
    // Equal keys: a token's result is the mean of the values that it sees. Block size 2, blocks 1 then 0.
    const keys = t([4, 1, 1], 0, 0, 0, 0);
    const values = t([4, 1, 1], 30, 40, 10, 20);
    const operands = [t([2, 1, 1], 1, 1), keys, values, t([2], 0, 2), t([1], 3), t([1, 2], 1, 0)];
    const attributes = { scale: 1, window: 0, blockSize: 2 };
    expect(run("paged_attention", operands, attributes, [2, 1, 1])).toEqual([[15, 20]]);
    expect(run("paged_attention", operands, { ...attributes, window: 1 }, [2, 1, 1])).toEqual([[20, 30]]);
  });
});

describe("what points outside is refused", () => {
  test.each([
    [
      "embedding",
      () => run("embedding", [matrix, t([2], 0, 2)], { dtype: "f32" }, [2, 3]),
      /ids\[1\][\s\S]*0 to 1/,
    ],
    ["gather", () => run("gather", [matrix, t([1], -1)], {}, [1, 3]), /gather: ids\[0\][\s\S]*received: -1/],
    ["scatter_add", () => run("scatter_add", [matrix, t([2], 0, 9)], { rows: 4 }, [4, 3]), /ids\[1\]/],
    [
      "cross_entropy",
      () => run("cross_entropy", [matrix, t([2], 3, -1)], {}, [2], [2]),
      /targets\[0\][\s\S]*0 to 2/,
    ],
    [
      "cross_entropy below -1",
      () => run("cross_entropy", [matrix, t([2], -1, -2)], {}, [2], [2]),
      /targets\[1\]/,
    ],
    [
      "cache_write",
      () => run("cache_write", [t([1, 1], 1), t([1, 1], 1), t([1], 1)], {}, [1, 1]),
      /slots\[0\]/,
    ],
    [
      "cache_write_quantized",
      () =>
        run(
          "cache_write_quantized",
          [t([1, 1, 1], 1), t([1, 1], 1), t([1, 1, 1], 1), t([1], -2)],
          {},
          [1, 1, 1],
          [1, 1],
        ),
      /slots\[0\]/,
    ],
    [
      "cache_copy from half a block",
      () => run("cache_copy", [t([3, 1], 1, 2, 3), t([1], 1), t([1], 0)], { blockSize: 2 }, [3, 1]),
      /cache_copy: sources\[0\][\s\S]*received: 1/,
    ],
    [
      "cache_copy to below -1",
      () => run("cache_copy", [t([2, 1], 1, 2), t([1], 1), t([1], -2)], { blockSize: 1 }, [2, 1]),
      /destinations\[0\]/,
    ],
  ])("%s", (_name, body, message) => {
    expect(body).toThrow(message);
  });

  test("offsets that do not divide the tokens", () => {
    const q = t([2, 1, 1], 1, 1);
    const attributes = { scale: 1, causal: true, window: 0 };
    for (const offsets of [t([2], 0, 3), t([3], 0, 2, 1), t([2], 1, 2), t([1], 0)]) {
      expect(() => run("attention", [q, q, q, offsets], attributes, [2, 1, 1], [1, 2])).toThrow(
        /offsets do not divide the tokens[\s\S]*end at 2/,
      );
    }
  });

  test("a context that its queries or its table do not fit", () => {
    const q = t([2, 1, 1], 1, 1);
    const page = (context: number) =>
      run(
        "paged_attention",
        [q, q, q, t([2], 0, 2), t([1], context), t([1, 1], 0)],
        { scale: 1, window: 0, blockSize: 2 },
        [2, 1, 1],
      );
    expect(() => page(1)).toThrow(/context_lengths\[0\] does not fit[\s\S]*from 2[\s\S]*to 2/);
    expect(() => page(3)).toThrow(/received: 3/);
  });
});
