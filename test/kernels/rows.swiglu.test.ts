import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import { checkKernel } from "./check.ts";
import {
  bytesOf,
  copyOf,
  randomTensor,
  runKernel,
  tensorOf,
  valuesOf,
  variantsOf,
  zeros,
} from "./support.ts";

const dtypes: readonly DType[] = ["f32", "bf16", "f16"];
const shapes: readonly (readonly number[])[] = [[1], [3, 7], [0, 5], [2, 3, 16], [129, 131]];

const sigmoid = (x: number) => (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x)));
const silu = (x: number) => x * sigmoid(x);
const siluSlope = (x: number) => sigmoid(x) * (1 + x * (1 - sigmoid(x)));

describe("swiglu", () => {
  for (const dtype of dtypes) {
    for (const shape of shapes) {
      test(`[${shape}] ${dtype}`, () => {
        const [dY, gate, up] = [1, 2, 3].map((seed) => randomTensor(dtype, shape, seed, seed));
        const [d, g, u] = [valuesOf(dY!), valuesOf(gate!), valuesOf(up!)];
        checkKernel({
          name: "swiglu",
          inputs: [gate!, up!],
          outputs: [{ dtype, shape, expected: g.map((x, i) => silu(x) * u[i]!) }],
        });
        checkKernel({
          name: "swiglu_gradient",
          inputs: [dY!, gate!, up!],
          outputs: [
            { dtype, shape, expected: g.map((x, i) => d[i]! * u[i]! * siluSlope(x)) },
            { dtype, shape, expected: g.map((x, i) => d[i]! * silu(x)) },
          ],
        });
      });
    }
  }

  test("each element to a millionth of its own size, far from 0 and at it", () => {
    const xs = [-80, -30, -8.5, -1, -1e-3, 0, 1e-20, 0.7, 3, 20, 87, 89, 1e30];
    const shape = [xs.length];
    const ones = tensorOf("f32", shape, new Float32Array(xs.length).fill(1));
    for (const isa of ["scalar" as const, ...variantsOf("swiglu")]) {
      const [y, dGate, dUp] = [0, 1, 2].map(() => zeros("f32", shape));
      const gate = tensorOf("f32", shape, xs);
      runKernel("swiglu", isa, [gate, ones], [y!]);
      runKernel("swiglu_gradient", isa, [ones, gate, ones], [dGate!, dUp!]);
      valuesOf(gate).forEach((x, i) => {
        const near = (actual: number, expected: number, what: string) => {
          const error = Math.abs(actual - expected);
          expect(error, `${what} at ${x} on ${isa}`).toBeLessThanOrEqual(2e-6 * Math.abs(expected));
        };
        near(valuesOf(y!)[i]!, silu(x), "silu");
        near(valuesOf(dUp!)[i]!, silu(x), "d_up");
        near(valuesOf(dGate!)[i]!, siluSlope(x), "d_gate");
      });
    }
  });

  test("infinities and NaN", () => {
    const gate = tensorOf("f32", [3], [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]);
    const ones = tensorOf("f32", [3], [1, 1, 1]);
    for (const isa of ["scalar" as const, ...variantsOf("swiglu")]) {
      const y = zeros("f32", [3]);
      runKernel("swiglu", isa, [gate, ones], [y]);
      const [high, low, nan] = valuesOf(y);
      expect(high, isa).toBe(Number.POSITIVE_INFINITY);
      expect(Math.abs(low!), isa).toBeLessThan(2e-36);
      expect(nan, isa).toBeNaN();
    }
  });

  test("results over any of the operands have the same bits", () => {
    for (const dtype of dtypes) {
      const shape = [37, 19];
      const operands = [1, 2, 3].map((seed) => randomTensor(dtype, shape, seed));
      const expected = [zeros(dtype, shape), zeros(dtype, shape)];
      for (const isa of ["scalar" as const, ...variantsOf("swiglu")]) {
        runKernel("swiglu_gradient", isa, operands, expected);
        for (const [first, second] of [
          [0, 1],
          [1, 2],
          [2, 0],
          [1, 0],
        ] as const) {
          const own = operands.map(copyOf);
          runKernel("swiglu_gradient", isa, own, [own[first]!, own[second]!]);
          expect(bytesOf(own[first]!), isa).toEqual(bytesOf(expected[0]!));
          expect(bytesOf(own[second]!), isa).toEqual(bytesOf(expected[1]!));
        }
        const [gate, up] = operands.slice(1);
        const y = zeros(dtype, shape);
        runKernel("swiglu", isa, [gate!, up!], [y]);
        for (const place of [0, 1]) {
          const own = [copyOf(gate!), copyOf(up!)];
          runKernel("swiglu", isa, own, [own[place]!]);
          expect(bytesOf(own[place]!), isa).toEqual(bytesOf(y));
        }
      }
    }
  });
});
