import type { ElementwiseOperation } from "../../expression.ts";

/**
 * The error function by its series of positive terms, within 1e-15:
 * erf(x) = 2/sqrt(pi) exp(-x^2) sum over n of 2^n x^(2n+1) / (1 * 3 * … * (2n+1)) (DLMF 7.6.2).
 */
export function erf(x: number): number {
  if (Number.isNaN(x)) return x;
  // Beyond 6, 1 - erf(x) is below half a unit in the last place of 1.
  if (Math.abs(x) >= 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > Math.abs(sum) * 1e-18; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** The logistic function, without overflow on either side. */
export function sigmoid(x: number): number {
  if (x >= 0) return 1 / (1 + Math.exp(-x));
  const exponential = Math.exp(x);
  return exponential / (1 + exponential);
}

/** What each elementwise operation means for numbers; unused operands are ignored. */
export const elementwiseFunctions: {
  readonly [Operation in ElementwiseOperation]: (a: number, b: number, c: number) => number;
} = {
  negate: (a) => -a,
  absolute: (a) => Math.abs(a),
  exp: (a) => Math.exp(a),
  log: (a) => Math.log(a),
  sqrt: (a) => Math.sqrt(a),
  rsqrt: (a) => 1 / Math.sqrt(a),
  reciprocal: (a) => 1 / a,
  tanh: (a) => Math.tanh(a),
  sigmoid: (a) => sigmoid(a),
  relu: (a) => (a > 0 || Number.isNaN(a) ? a : 0),
  silu: (a) => a * sigmoid(a),
  gelu: (a) => 0.5 * a * (1 + erf(a * Math.SQRT1_2)),
  gelu_tanh: (a) => 0.5 * a * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (a + 0.044715 * a * a * a))),
  erf: (a) => erf(a),
  sin: (a) => Math.sin(a),
  cos: (a) => Math.cos(a),
  sign: (a) => Math.sign(a),
  floor: (a) => Math.floor(a),
  is_finite: (a) => Number(Number.isFinite(a)),
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  divide: (a, b) => a / b,
  maximum: (a, b) => Math.max(a, b),
  minimum: (a, b) => Math.min(a, b),
  power: (a, b) => a ** b,
  less: (a, b) => Number(a < b),
  less_equal: (a, b) => Number(a <= b),
  equal: (a, b) => Number(a === b),
  select: (a, b, c) => (a !== 0 ? b : c),
};
