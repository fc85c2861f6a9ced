import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import { checkKernel } from "./check.ts";
import {
  randomIntegers,
  randomTensor,
  runKernel,
  runnableIsas,
  type TestTensor,
  tensorOf,
  valuesOf,
  zeros,
} from "./support.ts";

const shapes: [number, number][] = [
  [1, 1],
  [2, 2],
  [5, 3],
  [3, 17],
  [70, 65],
  [2, 1000],
  [3, 5003],
  [0, 4],
];
const mixes: [DType, DType][] = [
  ["f32", "f32"],
  ["bf16", "f32"],
  ["bf16", "bf16"],
  ["f16", "f16"],
];

function softmaxReference(x: ArrayLike<number>, rows: number, width: number) {
  const y = new Float64Array(rows * width);
  const logsumexp = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const values = Array.from({ length: width }, (_, i) => x[row * width + i]!);
    const top = values.reduce((a, b) => Math.max(a, b));
    const total = values.reduce((sum, value) => sum + Math.exp(value - top), 0);
    logsumexp[row] = top + Math.log(total);
    for (let i = 0; i < width; i++) y[row * width + i] = Math.exp(values[i]! - top) / total;
  }
  return { y, logsumexp };
}

/** Logits of which one in ten is masked with minus infinity (never a whole row). */
function masked(x: TestTensor, width: number): TestTensor {
  const values = valuesOf(x);
  for (let i = 0; i < values.length; i += 10) if (i % width !== 1 % width) values[i] = -Infinity;
  return tensorOf(x.dtype, x.shape, values);
}

describe("softmax", () => {
  for (const [rows, width] of shapes) {
    for (const [dtype, outputType] of mixes) {
      test(`[${rows}, ${width}] ${dtype} -> ${outputType}, and its gradient`, () => {
        const x = masked(randomTensor(dtype, [rows, width], 1, 6), width);
        const { y } = softmaxReference(valuesOf(x), rows, width);
        const reduction = Math.max(16, width);
        checkKernel({
          name: "softmax",
          inputs: [x],
          outputs: [{ dtype: outputType, shape: [rows, width], expected: y }],
          reduction,
        });
        const dY = randomTensor(dtype, [rows, width], 2);
        const rounded = tensorOf(outputType, [rows, width], y);
        const [ds, ys] = [valuesOf(dY), valuesOf(rounded)];
        const dots = new Float64Array(rows);
        for (let at = 0; at < ds.length; at++) {
          const row = Math.floor(at / width);
          dots[row] = dots[row]! + ds[at]! * ys[at]!;
        }
        const dX = ds.map((gradient, at) => ys[at]! * (gradient - dots[Math.floor(at / width)]!));
        const terms = ds.map(
          (gradient, at) => ys[at]! * (Math.abs(gradient) + Math.abs(dots[Math.floor(at / width)]!)),
        );
        checkKernel({
          name: "softmax_gradient",
          inputs: [dY, rounded],
          outputs: [{ dtype, shape: [rows, width], expected: dX, terms }],
          reduction,
        });
      });
    }
  }

  test("large logits do not overflow, masked ones are exactly zero, NaN shows in its row alone", () => {
    for (const isa of runnableIsas()) {
      const x = tensorOf(
        "f32",
        [3, 3],
        [3e38, 3e38, -Infinity, 1, Number.NaN, 2, -Infinity, -5e30, -Infinity],
      );
      const y = zeros("f32", [3, 3]);
      runKernel("softmax", isa, [x], [y]);
      expect([...y.data].map(Number)).toEqual([0.5, 0.5, 0, Number.NaN, Number.NaN, Number.NaN, 0, 1, 0]);
    }
  });
});

describe("cross_entropy", () => {
  for (const [rows, width] of shapes) {
    for (const [dtype, outputType] of mixes) {
      test(`[${rows}, ${width}] ${dtype} -> ${outputType}, and its gradient`, () => {
        const logits = randomTensor(dtype, [rows, width], 1, 6);
        const targets = randomIntegers([rows], 2, -1, width);
        const ids = valuesOf(targets);
        const xs = valuesOf(logits);
        const { y, logsumexp } = softmaxReference(xs, rows, width);
        const losses = ids.map((id, row) => (id < 0 ? 0 : logsumexp[row]! - xs[row * width + id]!));
        const reduction = Math.max(16, width);
        checkKernel({
          name: "cross_entropy",
          inputs: [logits, targets],
          outputs: [
            { dtype: "f32", shape: [rows], expected: losses, terms: logsumexp },
            { dtype: "f32", shape: [rows], expected: logsumexp },
          ],
          reduction,
        });
        const dLosses = randomTensor("f32", [rows], 3);
        const ds = valuesOf(dLosses);
        const dLogits = y.map((probability, at) => {
          const row = Math.floor(at / width);
          if (ids[row]! < 0) return 0;
          return ds[row]! * (probability - (at - row * width === ids[row] ? 1 : 0));
        });
        checkKernel({
          name: "cross_entropy_gradient",
          inputs: [dLosses, logits, targets, tensorOf("f32", [rows], logsumexp)],
          outputs: [{ dtype: outputType, shape: [rows, width], expected: dLogits }],
          reduction,
        });
      });
    }
  }

  test("logits of any size; a row in which only the target is left loses nothing", () => {
    for (const isa of runnableIsas()) {
      const width = 2100;
      const values = new Float64Array(2 * width).fill(-Infinity);
      values[2099] = -7e30;
      for (let i = 0; i < width; i++) values[width + i] = 1e30 * (i === 5 ? 2 : 1);
      const losses = zeros("f32", [2]);
      const logits = tensorOf("f32", [2, width], values);
      runKernel("cross_entropy", isa, [logits, tensorOf("i32", [2], [2099, 5])], [losses, zeros("f32", [2])]);
      expect([...losses.data]).toEqual([0, 0]);
    }
  });
});

describe("argmax", () => {
  for (const [rows, width] of [...shapes, [2, 9000] as [number, number]]) {
    test(`[${rows}, ${width}]`, () => {
      for (const dtype of ["f32", "bf16"] as const) {
        const x = randomTensor(dtype, [rows, width], 7);
        const xs = valuesOf(x);
        const expected = Array.from({ length: rows }, (_, row) => {
          const values = [...xs.subarray(row * width, (row + 1) * width)];
          return values.indexOf(Math.max(...values));
        });
        for (const isa of runnableIsas()) {
          const y = zeros("i32", [rows]);
          runKernel("argmax", isa, [x], [y], [], 2);
          expect([...y.data]).toEqual(expected);
        }
      }
    });
  }

  test("the first of equal ones, also in another block; minus infinity and NaN", () => {
    const width = 5000;
    const values = new Float64Array(4 * width).fill(-3);
    for (const i of [4, 2047, 2048, 4999]) values[i] = 9;
    values.fill(-Infinity, width, 2 * width);
    values.fill(Number.NaN, 2 * width, 3 * width);
    values.fill(Number.NaN, 3 * width, 4 * width);
    values[3 * width + 4100] = -Infinity;
    for (const isa of runnableIsas()) {
      const y = zeros("i32", [4]);
      runKernel("argmax", isa, [tensorOf("f32", [4, width], values)], [y]);
      expect([...y.data]).toEqual([4, 0, 0, 4100]);
    }
  });
});
