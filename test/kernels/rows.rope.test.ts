import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import { checkKernel } from "./check.ts";
import {
  bytesOf,
  copyOf,
  randomIntegers,
  randomTensor,
  runKernel,
  tensorOf,
  valuesOf,
  variantsOf,
  zeros,
} from "./support.ts";

const shapes = [
  { tokens: 1, heads: 1, size: 2, rotated: 2 },
  { tokens: 3, heads: 2, size: 7, rotated: 4 },
  { tokens: 9, heads: 3, size: 64, rotated: 64 },
  { tokens: 70, heads: 5, size: 34, rotated: 34 },
  { tokens: 5, heads: 2, size: 130, rotated: 66 },
  { tokens: 0, heads: 2, size: 8, rotated: 8 },
];

describe("rope", () => {
  for (const { tokens, heads, size, rotated } of shapes) {
    for (const dtype of ["f32", "bf16", "f16"] as DType[]) {
      for (const interleaved of [0, 1]) {
        test(`[${tokens}, ${heads}, ${size}] rotating ${rotated}, ${dtype}, interleaved ${interleaved}`, () => {
          const half = rotated / 2;
          const x = randomTensor(dtype, [tokens, heads, size], 1);
          const positions = Int32Array.from({ length: tokens }, (_, t) => (t * 123457) % 1000003);
          const frequencies = tensorOf(
            "f32",
            [half],
            Float64Array.from({ length: half }, (_, i) => 10000 ** (-i / half)),
          );
          const [xs, fs] = [valuesOf(x), valuesOf(frequencies)];
          for (const inverse of [0, 1]) {
            const expected = xs.slice();
            for (let token = 0; token < tokens; token++) {
              for (let head = 0; head < heads; head++) {
                const base = (token * heads + head) * size;
                for (let i = 0; i < half; i++) {
                  const angle = positions[token]! * fs[i]! * (inverse ? -1 : 1);
                  const a = base + (interleaved ? 2 * i : i);
                  const b = base + (interleaved ? 2 * i + 1 : i + half);
                  expected[a] = xs[a]! * Math.cos(angle) - xs[b]! * Math.sin(angle);
                  expected[b] = xs[b]! * Math.cos(angle) + xs[a]! * Math.sin(angle);
                }
              }
            }
            checkKernel({
              name: "rope",
              inputs: [x, { dtype: "i32", shape: [tokens], data: positions }, frequencies],
              outputs: [{ dtype, shape: [tokens, heads, size], expected }],
              attributes: [inverse, interleaved],
            });
          }
        });
      }
    }
  }

  test("the result may be the memory of x", () => {
    for (const dtype of ["f32", "bf16"] as DType[]) {
      const x = randomTensor(dtype, [11, 3, 70], 2);
      const positions = randomIntegers([11], 3, 0, 5000);
      const frequencies = randomTensor("f32", [33], 4);
      for (const isa of ["scalar" as const, ...variantsOf("rope")]) {
        for (const interleaved of [0, 1]) {
          const [y, own] = [zeros(dtype, x.shape), copyOf(x)];
          runKernel("rope", isa, [x, positions, frequencies], [y], [0, interleaved]);
          runKernel("rope", isa, [own, positions, frequencies], [own], [0, interleaved]);
          expect(bytesOf(own), isa).toEqual(bytesOf(y));
        }
      }
    }
  });
});
