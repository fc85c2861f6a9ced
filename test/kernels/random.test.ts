import { describe, expect, test } from "vitest";
import { roundTo } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { bytesOf, runKernel, runnableIsas, tensorOf, valuesOf, zeros } from "./support.ts";

const sizes = [0, 1, 2, 3, 7, 17, 33, 63, 65, 1000, 9001];
const seeds = [
  { seed: 0, step: 0, stream: 0 },
  { seed: 42, step: 7, stream: 3 },
  { seed: -5, step: 2 ** 20 - 1, stream: 2 ** 32 - 2 },
];

describe("random", () => {
  for (const { seed, step, stream } of seeds) {
    test(`the numbers of TypeScript's stream: seed ${seed}, step ${step}, stream ${stream}`, () => {
      for (const isa of runnableIsas()) {
        for (const size of sizes) {
          for (const normal of [false, true]) {
            const philox = new PhiloxStream((seed >>> 0) + step * 2 ** 32, stream);
            const expected = Array.from({ length: size }, () =>
              Math.fround(normal ? philox.nextNormal() : philox.nextFloat()),
            );
            const y = zeros("f32", [size]);
            runKernel("random", isa, [tensorOf("i32", [2], [seed, step])], [y], [normal ? 1 : 0, stream], 3);
            // The C library's logarithm and cosine may differ from JavaScript's in the last bit of a double.
            const bound = normal ? 3e-7 : 0;
            const worst = valuesOf(y).reduce(
              (most, value, i) => Math.max(most, Math.abs(value - expected[i]!)),
              0,
            );
            expect(worst).toBeLessThanOrEqual(bound);
          }
        }
      }
    });
  }

  test("16-bit outputs are the float32 numbers rounded; threads change nothing", () => {
    const seed = tensorOf("i32", [2], [9, 1]);
    for (const isa of runnableIsas()) {
      const exact = zeros("f32", [70, 130]);
      runKernel("random", isa, [seed], [exact], [1, 0], 1);
      for (const threads of [2, 3]) {
        const again = zeros("f32", [70, 130]);
        runKernel("random", isa, [seed], [again], [1, 0], threads);
        expect(bytesOf(again)).toEqual(bytesOf(exact));
      }
      const rounded = zeros("bf16", [70, 130]);
      runKernel("random", isa, [seed], [rounded], [1, 0], 2);
      expect(valuesOf(rounded)).toEqual(valuesOf(exact).map((value) => roundTo("bf16", value)));
    }
  });
});
