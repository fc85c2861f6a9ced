/** Matrix products in float64, for the tests of the matrix kernels. */
import { roundTo } from "../../src/base/dtype.ts";
import { elementsOf, type TestTensor, valuesOf } from "./support.ts";

/** The error function: its series of positive terms (Abramowitz and Stegun 7.1.6). */
export function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && n < 300; n++) {
    term *= (2 * x * x) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

/** The activations by their kernel codes. */
export const activations: ((x: number) => number)[] = [
  (x) => x,
  (x) => Math.max(x, 0),
  (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
  (x) => (x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)))) / 2,
  (x) => x / (1 + Math.exp(-x)),
];

export interface ReferenceOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly activation?: number;
  readonly bias?: TestTensor | null;
  readonly residual?: TestTensor | null;
  /** The output's earlier contents, where it is accumulated to. */
  readonly before?: Float64Array | null;
  /** Whether the operands are rounded to bf16 first (default: where a is bf16). */
  readonly bf16?: boolean;
}

/** activation(a b + bias) + residual + before in float64; b may lack a's batch axes. */
export function referenceMatmul(a: TestTensor, b: TestTensor, options: ReferenceOptions = {}): Float64Array {
  const [rows, depth] = a.shape.slice(-2).toSorted(() => (options.transposeA ? -1 : 1)) as [number, number];
  const columns = b.shape.at(options.transposeB ? -2 : -1)!;
  const batch = elementsOf(a.shape.slice(0, -2));
  const round = (options.bf16 ?? a.dtype === "bf16") ? (x: number) => roundTo("bf16", x) : (x: number) => x;
  const left = valuesOf(a).map(round);
  const right = valuesOf(b).map(round);
  const bias = options.bias ? valuesOf(options.bias) : null;
  const residual = options.residual ? valuesOf(options.residual) : null;
  const activation = activations[options.activation ?? 0]!;
  const result = new Float64Array(batch * rows * columns);
  for (let i = 0; i < batch; i++) {
    const leftBase = i * rows * depth;
    const rightBase = b.shape.length === 2 ? 0 : i * depth * columns;
    for (let m = 0; m < rows; m++) {
      for (let n = 0; n < columns; n++) {
        let sum = 0;
        for (let k = 0; k < depth; k++) {
          const x = left[leftBase + (options.transposeA ? k * rows + m : m * depth + k)]!;
          sum += x * right[rightBase + (options.transposeB ? n * depth + k : k * columns + n)]!;
        }
        const index = (i * rows + m) * columns + n;
        result[index] =
          activation(sum + (bias?.[n] ?? 0)) + (residual?.[index] ?? 0) + (options.before?.[index] ?? 0);
      }
    }
  }
  return result;
}
