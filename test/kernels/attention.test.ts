import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import type { IsaName } from "../../src/runtime/native/addon.ts";
import { type AttentionCase, attentionGradientReference, attentionReference } from "./attention_reference.ts";
import {
  randomTensor,
  relativeError,
  runKernel,
  runnableIsas,
  type TestTensor,
  tensorOf,
  valuesOf,
  zeros,
} from "./support.ts";

const isas = runnableIsas();

interface Operands {
  readonly q: TestTensor;
  readonly k: TestTensor;
  readonly v: TestTensor;
  readonly dOut: TestTensor;
  readonly offsets: TestTensor;
}

function operands(options: AttentionCase, dtype: DType, seed = 1, scale = 1): Operands {
  const { heads, groups, size, offsets } = options;
  const tokens = offsets.at(-1)!;
  return {
    q: randomTensor(dtype, [tokens, heads, size], seed, scale),
    k: randomTensor(dtype, [tokens, groups, size], seed + 1, scale),
    v: randomTensor(dtype, [tokens, groups, size], seed + 2),
    dOut: randomTensor(dtype, [tokens, heads, size], seed + 3),
    offsets: tensorOf("i32", [offsets.length], offsets),
  };
}

function attributes(options: AttentionCase): number[] {
  return [options.scale, Number(options.causal), options.window];
}

function forward(options: AttentionCase, { q, k, v, offsets }: Operands, isa: IsaName, threads = 2) {
  const out = zeros(q.dtype, q.shape);
  const logsumexp = zeros("f32", [options.heads, q.shape[0]!]);
  const ran = runKernel("attention", isa, [q, k, v, offsets], [out, logsumexp], attributes(options), threads);
  return { out, logsumexp, ran };
}

function backward(options: AttentionCase, given: Operands, isa: IsaName, threads = 2) {
  const { q, k, v, dOut, offsets } = given;
  const { out, logsumexp } = forward(options, given, isa, threads);
  const [dQ, dK, dV] = [zeros(q.dtype, q.shape), zeros(k.dtype, k.shape), zeros(v.dtype, v.shape)];
  runKernel(
    "attention_gradient",
    isa,
    [dOut, q, k, v, out, logsumexp, offsets],
    [dQ, dK, dV],
    attributes(options),
    threads,
  );
  return { dQ, dK, dV };
}

function attentionCase(given: Partial<AttentionCase> & { offsets: readonly number[] }): AttentionCase {
  const size = given.size ?? 16;
  return { heads: 2, groups: 2, size, scale: 1 / Math.sqrt(size), causal: true, window: 0, ...given };
}

/** Relative Frobenius bounds: float32 math over `length`, or the rounding of 16-bit operands. */
function bound(dtype: DType, length: number): number {
  return dtype === "f32" ? 1e-6 * Math.sqrt(length) : 4e-3;
}

const cases: Record<string, AttentionCase> = {
  "one tile": attentionCase({ offsets: [0, 64], size: 64 }),
  "ragged tiles": attentionCase({ offsets: [0, 201], size: 64 }),
  "sequences of many lengths, empty and single ones among them": attentionCase({
    offsets: [0, 0, 1, 6, 71, 71, 199, 200],
    size: 32,
  }),
  "every pair": attentionCase({ offsets: [0, 70, 230], causal: false, size: 32 }),
  "grouped heads": attentionCase({ offsets: [0, 100, 177], heads: 6, groups: 2, size: 24 }),
  "one key/value head": attentionCase({ offsets: [0, 150], heads: 5, groups: 1, size: 40 }),
  "a window smaller than a tile": attentionCase({ offsets: [0, 250], window: 7, size: 32 }),
  "a window larger than a tile": attentionCase({ offsets: [0, 300, 310], window: 90, size: 32 }),
  "a window of one token": attentionCase({ offsets: [0, 130], window: 1 }),
  "a window without causality": attentionCase({ offsets: [0, 210], window: 65, causal: false }),
  "a negative scale": attentionCase({ offsets: [0, 90], scale: -0.3 }),
  ...Object.fromEntries(
    [1, 2, 3, 8, 15, 17, 48, 80, 96, 100, 128, 255, 256].map((size) => [
      `heads of ${size}`,
      attentionCase({ offsets: [0, 67, 140], heads: 2, groups: 1, size }),
    ]),
  ),
};

describe.each(isas)("attention on %s", (isa) => {
  test.each(Object.keys(cases))("%s", (name) => {
    const options = cases[name]!;
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      const given = operands(options, dtype);
      const [q, k, v] = [given.q, given.k, given.v].map(valuesOf) as [
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const expected = attentionReference(options, q, k, v);
      const { out, logsumexp } = forward(options, given, isa);
      const length = options.offsets.at(-1)!;
      expect(relativeError(valuesOf(out), expected.out), dtype).toBeLessThan(bound(dtype, length));
      expect(relativeError(valuesOf(logsumexp), expected.logsumexp), dtype).toBeLessThan(
        bound(dtype, length),
      );
    }
  });
});

describe.each(isas)("attention_gradient on %s", (isa) => {
  test.each(Object.keys(cases))("%s", (name) => {
    const options = cases[name]!;
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      const given = operands(options, dtype);
      const [dOut, q, k, v] = [given.dOut, given.q, given.k, given.v].map(valuesOf) as [
        Float64Array,
        Float64Array,
        Float64Array,
        Float64Array,
      ];
      const expected = attentionGradientReference(options, dOut, q, k, v);
      const { dQ, dK, dV } = backward(options, given, isa);
      const limit = bound(dtype, options.offsets.at(-1)!);
      // What a window of one token leaves of the scores' gradients is 0, and rounding: nothing to relate to.
      const absolute = options.window === 1;
      for (const [actual, wanted] of [
        [dQ, expected.dQ],
        [dK, expected.dK],
        [dV, expected.dV],
      ] as const) {
        if (absolute && wanted !== expected.dV) {
          expect(Math.max(...valuesOf(actual).map(Math.abs)), dtype).toBeLessThan(
            dtype === "f32" ? 1e-5 : 0.1,
          );
        } else {
          expect(relativeError(valuesOf(actual), wanted), dtype).toBeLessThan(limit);
        }
      }
    }
  });
});
