import { describe, expect, test } from "vitest";
import type { QuantizedFormat } from "../../../base/quantized_format.ts";
import { packedBytes } from "../../../base/quantized_format.ts";
import { symbolic } from "../../../base/shape.ts";
import { leaf } from "../../build.ts";
import { createNode, type Value } from "../../graph.ts";
import { costOf } from "../cost.ts";

const int8: QuantizedFormat = { bits: 8, group: 32, minimum: false };
const rows = symbolic("tokens", 8);
const x = leaf("x", "input", [rows, 70], "bf16");
const bytesOfX = createNode("quantize_rows", [x], { group: 32 });
const operands = bytesOfX.outputs.map((_, index): Value => ({ node: bytesOfX, index }));
const packed = (format: QuantizedFormat, columns: number, inner: number): Value =>
  leaf("w", "parameter", [packedBytes(format, columns, inner)], "u8");
const plain = { inner: 70, activation: "none", bias: false, residual: false, dtype: "f32" } as const;

test("rows of bytes: padded values, and a scale and a sum for each group", () => {
  expect(bytesOfX.outputs).toEqual([
    { shape: [rows, 96], dtype: "i8" },
    { shape: [rows, 3], dtype: "f32" },
    { shape: [rows, 3], dtype: "i32" },
  ]);
});

test("one result a weight, and costs of each", () => {
  const weights = [
    { format: int8, columns: 40 },
    { format: { ...int8, bits: 4 }, columns: 7 },
  ] as const;
  const node = createNode(
    "matmul_quantized",
    [...operands, packed(int8, 40, 70), packed(weights[1].format, 7, 70)],
    { ...plain, weights },
  );
  expect(node.outputs).toEqual([
    { shape: [rows, 40], dtype: "f32" },
    { shape: [rows, 7], dtype: "f32" },
  ]);
  const { flops, bytes } = costOf(node, { tokens: 5 });
  expect(flops).toBe(2 * 5 * 70 * 47);
  // Values, scales and sums; two panels and one; results.
  expect(bytes).toBe(5 * (96 + 12 + 12) + 2 * 3 * 1088 + 3 * (512 + 64) + 4 * 5 * 47);
});

describe("refuses", () => {
  const product = (inputs: readonly Value[], attributes: object) => () =>
    createNode("matmul_quantized", inputs, {
      ...plain,
      weights: [{ format: int8, columns: 40 }],
      ...attributes,
    });
  const weight = packed(int8, 40, 70);

  test.each([
    [
      "another inner size",
      product([...operands, weight], { inner: 64 }),
      /the values and rows of 64 elements/,
    ],
    [
      "bytes of another matrix",
      product([...operands, packed(int8, 70, 70)], {}),
      /must have 6528 bytes for \[40, 70\]/,
    ],
    [
      "weights in different groups",
      product([...operands, weight, packed({ ...int8, group: 16 }, 40, 70)], {
        weights: [
          { format: int8, columns: 40 },
          { format: { ...int8, group: 16 }, columns: 40 },
        ],
      }),
      /same groups/,
    ],
    [
      "a residual of two weights",
      product([...operands, weight, weight], {
        residual: true,
        weights: [
          { format: int8, columns: 40 },
          { format: int8, columns: 40 },
        ],
      }),
      /a residual goes with a single weight/,
    ],
    [
      "rows of part of a block",
      () =>
        createNode("repack_blocks", [leaf("b", "input", [34], "u8")], { type: "q8_0", rows: 1, columns: 33 }),
      /rows of 33 elements are not whole q8_0 blocks/,
    ],
    [
      "blocks that are cut off",
      () =>
        createNode("repack_blocks", [leaf("b", "input", [33], "u8")], { type: "q8_0", rows: 1, columns: 32 }),
      /must have 34 bytes/,
    ],
    [
      "whole columns that overflow",
      () =>
        createNode("quantize_matrix", [leaf("m", "input", [1, 70000], "f32")], {
          format: { bits: 8, group: 0, minimum: false },
        }),
      /columns of 70000 elements cannot have one scale/,
    ],
    ["groups of 24", () => createNode("quantize_rows", [x], { group: 24 }), /multiples of 16/],
    [
      "ids that are fractions",
      () =>
        createNode("embedding_quantized", [weight, x], { format: int8, rows: 40, columns: 70, dtype: "f32" }),
      /ids/,
    ],
  ])("%s", (_name, make, message) => {
    expect(make).toThrow(message);
  });
});
