import { describe, expect, test } from "vitest";
import { attentionGradientReference, attentionReference } from "./attention_reference.ts";
import { attentionCase, operandsOf, runBackward, runForward } from "./attention_support.ts";
import { bytesOf, copyOf, relativeError, runKernel, valuesOf, variantsOf } from "./support.ts";

const isas = ["scalar", ...variantsOf("attention")] as const;

test("the reference's gradients are its central differences", () => {
  const options = attentionCase({ offsets: [0, 3, 8], heads: 4, groups: 2, size: 3, window: 4 });
  const given = operandsOf(options, "f32");
  const [q, k, v, dOut] = [given.q, given.k, given.v, given.dOut].map(valuesOf) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const loss = () =>
    attentionReference(options, q, k, v).out.reduce((sum, value, i) => sum + value * dOut[i]!, 0);
  const { dQ, dK, dV } = attentionGradientReference(options, dOut, q, k, v);
  for (const [operand, gradient] of [
    [q, dQ],
    [k, dK],
    [v, dV],
  ] as const) {
    const differences = operand.map((value, i) => {
      operand[i] = value + 1e-5;
      const above = loss();
      operand[i] = value - 1e-5;
      const below = loss();
      operand[i] = value;
      return (above - below) / 2e-5;
    });
    expect(relativeError(gradient, differences)).toBeLessThan(1e-8);
  }
});

describe.each(isas)("on %s", (isa) => {
  // Few large units, which threads share, and many small ones, which they do not.
  test.each([
    ["one long sequence", attentionCase({ offsets: [0, 400], heads: 3, groups: 1, size: 20 })],
    ["a window", attentionCase({ offsets: [0, 400], heads: 2, groups: 1, size: 20, window: 100 })],
    ["every pair", attentionCase({ offsets: [0, 300], heads: 2, groups: 1, size: 20, causal: false })],
    ["a long sequence among short ones", attentionCase({ offsets: [0, 9, 400, 460, 461], size: 20 })],
  ])("the bits do not depend on the threads: %s", (_, options) => {
    for (const dtype of ["f32", "bf16"] as const) {
      const given = operandsOf(options, dtype);
      const [first, ...others] = [1, 2, 3, 3].map((threads) => {
        const { out, logsumexp } = runForward(options, given, isa, threads);
        const { dQ, dK, dV } = runBackward(options, given, isa, threads);
        return Buffer.concat([out, logsumexp, dQ, dK, dV].map(bytesOf));
      });
      for (const other of others) expect(first!.equals(other)).toBe(true);
    }
  });

  test("scores of thousands neither overflow nor vanish", () => {
    const options = attentionCase({ offsets: [0, 150], size: 64, scale: 1 });
    const given = operandsOf(options, "f32", 5, 30);
    const [q, k, v] = [given.q, given.k, given.v].map(valuesOf) as [Float64Array, Float64Array, Float64Array];
    const { out, logsumexp } = runForward(options, given, isa);
    const expected = attentionReference(options, q, k, v);
    expect(Math.max(...expected.logsumexp)).toBeGreaterThan(10000);
    // A score of 2^14 is known to 2^-10 in float32.
    expect(relativeError(valuesOf(out), expected.out)).toBeLessThan(2e-2);
    expect(relativeError(valuesOf(logsumexp), expected.logsumexp)).toBeLessThan(1e-6);
    for (const tensor of Object.values(runBackward(options, given, isa)).slice(0, 3)) {
      if (typeof tensor === "object") expect(valuesOf(tensor).every(Number.isFinite)).toBe(true);
    }
  });

  test("a NaN reaches every query that sees it and no other sequence", () => {
    const options = attentionCase({ offsets: [0, 70, 140, 210] });
    for (const dtype of ["f32", "bf16"] as const) {
      for (const operand of ["q", "k", "v"] as const) {
        const given = operandsOf(options, dtype);
        const poisoned = copyOf(given[operand]);
        const token = 105;
        poisoned.data[token * options.heads * options.size + 3] = dtype === "f32" ? Number.NaN : 0x7fc0;
        const out = valuesOf(runForward(options, { ...given, [operand]: poisoned }, isa).out);
        const isBad = (row: number) =>
          out.subarray(row * 2 * 16, row * 2 * 16 + 16).some((value) => Number.isNaN(value));
        const seeing = operand === "q" ? [token] : Array.from({ length: 35 }, (_, i) => token + i);
        expect(seeing.filter((row) => !isBad(row))).toEqual([]);
        const others = Array.from({ length: 70 }, (_, i) => [i, i + 140]).flat();
        expect(others.filter(isBad)).toEqual([]);
        const gradients = runBackward(options, { ...given, [operand]: poisoned }, isa);
        expect(valuesOf(gradients.dV).some(Number.isNaN) || operand === "v").toBe(true);
        expect(
          valuesOf(gradients.dQ)
            .subarray(70 * 32, 140 * 32)
            .some(Number.isNaN),
        ).toBe(true);
        expect(
          valuesOf(gradients.dQ)
            .subarray(0, 70 * 32)
            .some(Number.isNaN),
        ).toBe(false);
        expect(
          valuesOf(gradients.dK)
            .subarray(140 * 32)
            .some(Number.isNaN),
        ).toBe(false);
      }
    }
  });

  test("logsumexp is optional", () => {
    const options = attentionCase({ offsets: [0, 80] });
    const given = operandsOf(options, "f32");
    const { out } = runForward(options, given, isa);
    const alone = copyOf({ ...out, data: out.data.slice().fill(0) });
    runKernel("attention", isa, [given.q, given.k, given.v, given.offsets], [alone], [options.scale, 1, 0]);
    expect(bytesOf(alone)).toEqual(bytesOf(out));
  });
});
