import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import { checkKernel } from "./check.ts";
import { randomTensor, runKernel, runnableIsas, tensorOf, valuesOf, zeros } from "./support.ts";

const shapes: [number, number][] = [
  [1, 1],
  [3, 2],
  [2, 7],
  [5, 17],
  [4, 63],
  [70, 65],
  [3, 1000],
  [1100, 33],
  [0, 5],
];
/** x, weight, output. */
const mixes: [DType, DType, DType][] = [
  ["f32", "f32", "f32"],
  ["bf16", "f32", "bf16"],
  ["bf16", "bf16", "f32"],
  ["f16", "bf16", "f16"],
];
const epsilon = 1e-5;

function rmsReference(x: Float64Array, weight: Float64Array, rows: number, width: number) {
  const y = new Float64Array(rows * width);
  const inverse = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[row * width + i]! ** 2;
    inverse[row] = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) y[row * width + i] = x[row * width + i]! * inverse[row]! * weight[i]!;
  }
  return { y, inverse };
}

function layerReference(
  x: Float64Array,
  weight: Float64Array,
  bias: Float64Array | null,
  rows: number,
  width: number,
) {
  const y = new Float64Array(rows * width);
  const means = new Float64Array(rows);
  const inverse = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const values = x.subarray(row * width, (row + 1) * width);
    const mean = values.reduce((sum, value) => sum + value, 0) / width;
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    means[row] = mean;
    inverse[row] = 1 / Math.sqrt(variance + epsilon);
    for (let i = 0; i < width; i++) {
      y[row * width + i] = (values[i]! - mean) * inverse[row]! * weight[i]! + (bias?.[i] ?? 0);
    }
  }
  return { y, means, inverse };
}

describe("rms_norm", () => {
  for (const [rows, width] of shapes) {
    for (const [dtype, weightType, outputType] of mixes) {
      test(`[${rows}, ${width}] ${dtype} * ${weightType} -> ${outputType}, and its gradient`, () => {
        const x = randomTensor(dtype, [rows, width], 1, 2);
        const weight = randomTensor(weightType, [width], 2);
        const { y, inverse } = rmsReference(valuesOf(x), valuesOf(weight), rows, width);
        checkKernel({
          name: "rms_norm",
          inputs: [x, weight],
          outputs: [
            { dtype: outputType, shape: [rows, width], expected: y },
            { dtype: "f32", shape: [rows], expected: inverse },
          ],
          attributes: [epsilon],
          reduction: width,
        });
        const dY = randomTensor(outputType, [rows, width], 3);
        const [xs, ws, ds] = [valuesOf(x), valuesOf(weight), valuesOf(dY)];
        const inverseTensor = tensorOf("f32", [rows], inverse);
        const dX = new Float64Array(rows * width);
        const terms = new Float64Array(rows * width);
        const dWeight = new Float64Array(width);
        for (let row = 0; row < rows; row++) {
          const r = inverse[row]!;
          let dot = 0;
          for (let i = 0; i < width; i++) {
            const at = row * width + i;
            dot += ds[at]! * ws[i]! * xs[at]!;
            dWeight[i] = dWeight[i]! + ds[at]! * xs[at]! * r;
          }
          for (let i = 0; i < width; i++) {
            const at = row * width + i;
            const own = r * ds[at]! * ws[i]!;
            const shared = (r ** 3 * xs[at]! * dot) / width;
            dX[at] = own - shared;
            terms[at] = Math.abs(own) + Math.abs(shared);
          }
        }
        for (const accumulate of [0, 1]) {
          const initial = randomTensor("f32", [width], 4);
          const start = valuesOf(initial);
          checkKernel({
            name: "rms_norm_gradient",
            inputs: [dY, x, weight, inverseTensor],
            outputs: [
              { dtype, shape: [rows, width], expected: dX, terms },
              {
                dtype: "f32",
                shape: [width],
                initial,
                expected: dWeight.map((value, i) => value + accumulate * start[i]!),
              },
            ],
            attributes: [accumulate],
            reduction: Math.max(16, width, rows),
          });
        }
      });
    }
  }
});

describe("layer_norm", () => {
  for (const [rows, width] of shapes) {
    for (const [dtype, weightType, outputType] of mixes) {
      if (width === 1) continue; // All zeros: the relative error has no meaning; tested below.
      test(`[${rows}, ${width}] ${dtype} * ${weightType} -> ${outputType}, and its gradient`, () => {
        const x = randomTensor(dtype, [rows, width], 1, 2);
        const weight = randomTensor(weightType, [width], 2);
        const bias = randomTensor(weightType, [width], 5);
        for (const present of [bias, null]) {
          const reference = layerReference(
            valuesOf(x),
            valuesOf(weight),
            present && valuesOf(present),
            rows,
            width,
          );
          checkKernel({
            name: "layer_norm",
            inputs: [x, weight, present],
            outputs: [
              { dtype: outputType, shape: [rows, width], expected: reference.y },
              { dtype: "f32", shape: [rows], expected: reference.means },
              { dtype: "f32", shape: [rows], expected: reference.inverse },
            ],
            attributes: [epsilon],
            reduction: Math.max(16, width),
          });
        }
        const { means, inverse } = layerReference(valuesOf(x), valuesOf(weight), null, rows, width);
        const dY = randomTensor(outputType, [rows, width], 3);
        const [xs, ws, ds] = [valuesOf(x), valuesOf(weight), valuesOf(dY)];
        const dX = new Float64Array(rows * width);
        const terms = new Float64Array(rows * width);
        const dWeight = new Float64Array(width);
        const dBias = new Float64Array(width);
        for (let row = 0; row < rows; row++) {
          let dot = 0;
          let total = 0;
          const normal = (i: number) => (xs[row * width + i]! - means[row]!) * inverse[row]!;
          for (let i = 0; i < width; i++) {
            const g = ds[row * width + i]!;
            dot += (g * ws[i]! * normal(i)) / width;
            total += (g * ws[i]!) / width;
            dWeight[i] = dWeight[i]! + g * normal(i);
            dBias[i] = dBias[i]! + g;
          }
          for (let i = 0; i < width; i++) {
            const at = row * width + i;
            const [own, shared] = [ds[at]! * ws[i]!, normal(i) * dot];
            dX[at] = inverse[row]! * (own - total - shared);
            terms[at] = inverse[row]! * (Math.abs(own) + Math.abs(total) + Math.abs(shared));
          }
        }
        checkKernel({
          name: "layer_norm_gradient",
          inputs: [dY, x, weight, tensorOf("f32", [rows], means), tensorOf("f32", [rows], inverse)],
          outputs: [
            { dtype, shape: [rows, width], expected: dX, terms },
            { dtype: "f32", shape: [width], expected: dWeight },
            { dtype: "f32", shape: [width], expected: dBias },
          ],
          attributes: [0],
          reduction: Math.max(64, width, rows),
        });
      });
    }
  }

  test("keeps its precision when the mean is large against the deviation", () => {
    const width = 1000;
    const x = tensorOf(
      "f32",
      [1, width],
      Float64Array.from({ length: width }, (_, i) => 4096 + (i % 7)),
    );
    const weight = tensorOf("f32", [width], new Float64Array(width).fill(1));
    const { y, means, inverse } = layerReference(valuesOf(x), valuesOf(weight), null, 1, width);
    checkKernel({
      name: "layer_norm",
      inputs: [x, weight],
      outputs: [
        { dtype: "f32", shape: [1, width], expected: y },
        { dtype: "f32", shape: [1], expected: means },
        { dtype: "f32", shape: [1], expected: inverse },
      ],
      attributes: [epsilon],
      bound: 1e-4,
    });
  });

  test("one column has no deviation: the output is the bias", () => {
    for (const isa of runnableIsas()) {
      const y = zeros("f32", [2, 1]);
      const x = tensorOf("f32", [2, 1], [3, -8]);
      const [weight, bias] = [tensorOf("f32", [1], [5]), tensorOf("f32", [1], [0.25])];
      const inverse = zeros("f32", [2]);
      runKernel("layer_norm", isa, [x, weight, bias], [y, zeros("f32", [2]), inverse], [0.25]);
      expect([...y.data]).toEqual([0.25, 0.25]);
      expect([...inverse.data]).toEqual([2, 2]);
    }
  });
});
