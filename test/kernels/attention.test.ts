import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import type { IsaName } from "../../src/runtime/native/addon.ts";
import { type AttentionCase, attentionGradientReference, attentionReference } from "./attention_reference.ts";
import { attentionCase, operandsOf, runBackward, runForward } from "./attention_support.ts";
import { relativeError, type TestTensor, valuesOf, variantsOf } from "./support.ts";

const cases: Record<string, AttentionCase> = {
  "one tile": attentionCase({ offsets: [0, 64], size: 64 }),
  "ragged tiles": attentionCase({ offsets: [0, 145], size: 64 }),
  "sequences of many lengths, empty and single ones among them": attentionCase({
    offsets: [0, 0, 1, 6, 71, 71, 199, 200],
  }),
  "no tokens": attentionCase({ offsets: [0, 0] }),
  "every pair": attentionCase({ offsets: [0, 70, 180], causal: false }),
  "grouped heads": attentionCase({ offsets: [0, 100, 177], heads: 6, groups: 2, size: 24 }),
  "one key/value head": attentionCase({ offsets: [0, 150], heads: 5, groups: 1, size: 40 }),
  "a window smaller than a tile": attentionCase({ offsets: [0, 150], window: 20 }),
  "a window of few keys": attentionCase({ offsets: [0, 150], window: 7 }),
  "a window larger than a tile": attentionCase({ offsets: [0, 250, 260], window: 90 }),
  "a window of one token": attentionCase({ offsets: [0, 130], window: 1 }),
  "a window without causality": attentionCase({ offsets: [0, 210], window: 65, causal: false }),
  "a negative scale": attentionCase({ offsets: [0, 90], scale: -0.3 }),
  ...Object.fromEntries(
    [1, 3, 15, 80, 96, 101, 128, 256].map((size) => [
      `heads of ${size}`,
      attentionCase({ offsets: [0, 67, 70], heads: 2, groups: 1, size }),
    ]),
  ),
};
const isas: readonly IsaName[] = ["scalar", ...variantsOf("attention")];

/** Relative Frobenius bounds: float32 math over `length`, or the rounding of 16-bit operands. */
function boundOf(dtype: DType, options: AttentionCase): number {
  return dtype === "f32" ? 1e-6 * Math.sqrt(Math.max(1, options.offsets.at(-1)!)) : 4e-3;
}

function expectNear(actual: TestTensor, expected: Float64Array, bound: number, name: string): void {
  expect(relativeError(valuesOf(actual), expected), name).toBeLessThan(bound);
}

describe.each(Object.keys(cases))("%s", (name) => {
  const options = cases[name]!;
  const dtypes: DType[] = name === "ragged tiles" ? ["f32", "bf16", "f16"] : ["f32", "bf16"];
  for (const dtype of dtypes) {
    const given = operandsOf(options, dtype);
    const [q, k, v, dOut] = [given.q, given.k, given.v, given.dOut].map(valuesOf) as [
      Float64Array,
      Float64Array,
      Float64Array,
      Float64Array,
    ];
    const { out, logsumexp } = attentionReference(options, q, k, v);
    const gradients = attentionGradientReference(options, dOut, q, k, v);
    const bound = boundOf(dtype, options);

    test.each(isas)(`${dtype} forward on %s`, (isa) => {
      const actual = runForward(options, given, isa);
      expect(actual.ran).toBe(isa);
      expectNear(actual.out, out, bound, "out");
      expectNear(actual.logsumexp, logsumexp, bound, "logsumexp");
    });

    test.each(isas)(`${dtype} backward on %s`, (isa) => {
      const actual = runBackward(options, given, isa);
      expect(actual.ran).toBe(isa);
      expectNear(actual.dV, gradients.dV, bound, "d_v");
      if (options.window === 1) {
        // The scores' gradients are 0, and rounding all that there is.
        const limit = dtype === "f32" ? 1e-5 : 0.05;
        const largest = [...valuesOf(actual.dQ), ...valuesOf(actual.dK)].map(Math.abs);
        expect(Math.max(...largest)).toBeLessThan(limit);
      } else {
        expectNear(actual.dQ, gradients.dQ, bound, "d_q");
        expectNear(actual.dK, gradients.dK, bound, "d_k");
      }
    });
  }
});
