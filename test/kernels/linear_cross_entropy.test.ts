import { describe, expect, it } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import type { IsaName } from "../../src/runtime/native/addon.ts";
import {
  bytesOf,
  randomIntegers,
  randomTensor,
  relativeError,
  runKernel,
  runnableIsas,
  type TestTensor,
  valuesOf,
  zeros,
} from "./support.ts";

interface Inputs {
  readonly hidden: TestTensor;
  readonly weight: TestTensor;
  readonly targets: TestTensor;
  readonly dLosses: TestTensor;
}

function makeInputs(tokens: number, depth: number, vocabulary: number, dtype: DType): Inputs {
  const targets = randomIntegers([tokens], 3, -1, vocabulary);
  if (tokens > 2) targets.data[1] = -1;
  return {
    hidden: randomTensor(dtype, [tokens, depth], 1),
    weight: randomTensor(dtype, [vocabulary, depth], 2, 2 / Math.sqrt(Math.max(depth, 1))),
    targets,
    dLosses: randomTensor("f32", [tokens], 4),
  };
}

/** Losses and gradients in float64, straight from the definition. */
function reference({ hidden, weight, targets, dLosses }: Inputs) {
  const [tokens, depth] = hidden.shape as [number, number];
  const vocabulary = weight.shape[0]!;
  const [h, w, target, scale] = [hidden, weight, targets, dLosses].map(valuesOf);
  const losses = new Float64Array(tokens);
  const dHidden = new Float64Array(tokens * depth);
  const dWeight = new Float64Array(vocabulary * depth);
  const logits = new Float64Array(vocabulary);
  for (let t = 0; t < tokens; t++) {
    if (target![t]! < 0) continue;
    for (let v = 0; v < vocabulary; v++) {
      let sum = 0;
      for (let k = 0; k < depth; k++) sum += h![t * depth + k]! * w![v * depth + k]!;
      logits[v] = sum;
    }
    const top = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const logsumexp = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
    losses[t] = logsumexp - logits[target![t]!]!;
    for (let v = 0; v < vocabulary; v++) {
      const probability = Math.exp(logits[v]! - logsumexp);
      const dLogit = (probability - (v === target![t] ? 1 : 0)) * scale![t]!;
      for (let k = 0; k < depth; k++) {
        dHidden[t * depth + k]! += dLogit * w![v * depth + k]!;
        dWeight[v * depth + k]! += dLogit * h![t * depth + k]!;
      }
    }
  }
  return { losses, dHidden, dWeight };
}

interface Outputs {
  readonly losses: TestTensor;
  readonly dHidden: TestTensor;
  readonly dWeight: TestTensor;
}

function gradient(isa: IsaName, inputs: Inputs, before: TestTensor | null = null, threads = 2): Outputs {
  const { hidden, weight, targets, dLosses } = inputs;
  const losses = zeros("f32", targets.shape);
  const dHidden = zeros(hidden.dtype, hidden.shape);
  const dWeight = zeros("f32", weight.shape);
  if (before) bytesOf(dWeight).set(bytesOf(before));
  else bytesOf(dWeight).fill(0x7f);
  const attributes = [before ? 1 : 0];
  const all = [dLosses, hidden, weight, targets];
  runKernel("linear_cross_entropy_gradient", isa, all, [losses, dHidden, dWeight], attributes, threads);
  return { losses, dHidden, dWeight };
}

/** [tokens, depth, vocabulary]: small, across blocks of tokens and vocabulary, and beyond 65536 entries. */
const sizes: [number, number, number][] = [
  [1, 1, 1],
  [3, 7, 5],
  [33, 20, 100],
  [70, 65, 513],
  [1, 300, 1100],
  [1100, 9, 33],
  [600, 5, 700],
];

describe.each(runnableIsas())("linear_cross_entropy on %s", (isa) => {
  it.each(sizes)("gives losses and gradients of %i tokens, depth %i, vocabulary %i", (...size) => {
    for (const dtype of ["f32", "bf16"] as const) {
      const inputs = makeInputs(...size, dtype);
      const expected = reference(inputs);
      const losses = zeros("f32", [size[0]]);
      const operands = [inputs.hidden, inputs.weight, inputs.targets];
      runKernel("linear_cross_entropy", isa, operands, [losses]);
      const actual = gradient(isa, inputs);
      const bar = 2e-6 * Math.sqrt(Math.max(...size));
      expect(relativeError(valuesOf(losses), expected.losses)).toBeLessThanOrEqual(bar);
      expect(relativeError(valuesOf(actual.losses), expected.losses)).toBeLessThanOrEqual(bar);
      // In bf16, d_logits are rounded, and d_hidden once more.
      const gradientBar = dtype === "bf16" ? 4e-3 : bar;
      expect(relativeError(valuesOf(actual.dHidden), expected.dHidden)).toBeLessThanOrEqual(gradientBar);
      expect(relativeError(valuesOf(actual.dWeight), expected.dWeight)).toBeLessThanOrEqual(gradientBar);
    }
  });

  it("computes large vocabularies in ranges", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      // The tile model is slow: it gets one chunk of tokens, the others two.
      const tokens = isa === "amx_emulated" ? 40 : 530;
      const inputs = makeInputs(tokens, 3, 70_000, dtype);
      // Few tokens count, so that the reference is quick; the rest pass through all the same.
      inputs.targets.data.fill(-1);
      for (const [t, target] of [
        [0, 5],
        [21, 69_999],
        [30, 16_384],
        [tokens - 1, 65_536],
      ] as const) {
        inputs.targets.data[t] = target;
      }
      const expected = reference(inputs);
      const actual = gradient(isa, inputs);
      const bar = dtype === "bf16" ? 4e-3 : 1e-5;
      expect(relativeError(valuesOf(actual.losses), expected.losses)).toBeLessThanOrEqual(1e-5);
      expect(relativeError(valuesOf(actual.dHidden), expected.dHidden)).toBeLessThanOrEqual(bar);
      expect(relativeError(valuesOf(actual.dWeight), expected.dWeight)).toBeLessThanOrEqual(bar);
    }
  });

  it("accumulates d_weight, and only d_weight", () => {
    const inputs = makeInputs(40, 24, 90, "f32");
    const before = randomTensor("f32", [90, 24], 9);
    const expected = reference(inputs);
    const actual = gradient(isa, inputs, before);
    const sum = expected.dWeight.map((value, i) => value + valuesOf(before)[i]!);
    expect(relativeError(valuesOf(actual.dWeight), sum)).toBeLessThanOrEqual(1e-5);
    expect(relativeError(valuesOf(actual.dHidden), expected.dHidden)).toBeLessThanOrEqual(1e-5);
  });

  it("gives ignored tokens no loss and no gradient, whatever their d_loss", () => {
    const inputs = makeInputs(30, 16, 50, "f32");
    for (let t = 0; t < 30; t += 2) {
      inputs.targets.data[t] = -1;
      inputs.dLosses.data[t] = Number.NaN;
    }
    const actual = gradient(isa, inputs);
    for (let t = 0; t < 30; t += 2) {
      expect(valuesOf(actual.losses)[t]).toBe(0);
      expect(valuesOf(actual.dHidden).subarray(t * 16, t * 16 + 16)).toEqual(new Float64Array(16));
    }
    expect(relativeError(valuesOf(actual.dWeight), reference(inputs).dWeight)).toBeLessThanOrEqual(1e-5);
  });

  it("shows a NaN of the hidden state in its own token's loss only", () => {
    const inputs = makeInputs(20, 16, 600, "f32");
    inputs.targets.data.fill(3);
    inputs.hidden.data[7 * 16 + 2] = Number.NaN;
    const losses = zeros("f32", [20]);
    runKernel("linear_cross_entropy", isa, [inputs.hidden, inputs.weight, inputs.targets], [losses]);
    valuesOf(losses).forEach((loss, t) => {
      expect(Number.isNaN(loss)).toBe(t === 7);
    });
  });

  it("clears d_weight where there are no tokens", () => {
    const actual = gradient(isa, makeInputs(0, 5, 40, "f32"));
    expect(valuesOf(actual.dWeight)).toEqual(new Float64Array(200));
  });

  it("gives the same bits on 1, 2 and 3 threads", () => {
    for (const dtype of ["f32", "bf16"] as const) {
      const inputs = makeInputs(600, 40, 1030, dtype);
      const [one, two, three] = [1, 2, 3].map((threads) => gradient(isa, inputs, null, threads));
      for (const other of [two!, three!]) {
        for (const key of ["losses", "dHidden", "dWeight"] as const) {
          expect(Buffer.compare(bytesOf(other[key]), bytesOf(one![key]))).toBe(0);
        }
      }
    }
  });
});
