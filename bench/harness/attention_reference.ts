import type { HeldTensor } from "./tensors.ts";
import { toFloat64 } from "./tensors.ts";

/** What attention over one head comes to, in float64: each `[tokens, size]`. */
export interface HeadResults {
  readonly out: Float64Array;
  readonly dQ: Float64Array;
  readonly dK: Float64Array;
  readonly dV: Float64Array;
}

/** The operands of causal attention: each `[tokens, heads, size]`. */
export interface AttentionOperands {
  readonly q: HeldTensor;
  readonly k: HeldTensor;
  readonly v: HeldTensor;
  readonly dOut: HeldTensor;
}

/** One head of a tensor `[tokens, heads, size]` as `[tokens, size]`. */
export function headOf(tensor: HeldTensor, head: number): Float64Array {
  const [tokens, heads, size] = tensor.shape as [number, number, number];
  const all = toFloat64(tensor);
  const result = new Float64Array(tokens * size);
  for (let token = 0; token < tokens; token++) {
    const start = (token * heads + head) * size;
    result.set(all.subarray(start, start + size), token * size);
  }
  return result;
}

function dot(a: Float64Array, aRow: number, b: Float64Array, bRow: number, size: number): number {
  let sum = 0;
  for (let i = 0; i < size; i++) sum += a[aRow * size + i]! * b[bRow * size + i]!;
  return sum;
}

function addRow(
  to: Float64Array,
  toRow: number,
  from: Float64Array,
  fromRow: number,
  size: number,
  factor: number,
): void {
  for (let i = 0; i < size; i++) to[toRow * size + i]! += factor * from[fromRow * size + i]!;
}

/** Causal attention of one head and its gradients by the definition, scores scaled by 1 / sqrt(size). */
export function referenceHead(operands: AttentionOperands, head: number): HeadResults {
  const [tokens, , size] = operands.q.shape as [number, number, number];
  const [q, k, v, dOut] = [operands.q, operands.k, operands.v, operands.dOut].map((one) => headOf(one, head));
  const scale = 1 / Math.sqrt(size);
  const empty = () => new Float64Array(tokens * size);
  const results = { out: empty(), dQ: empty(), dK: empty(), dV: empty() };
  for (let row = 0; row < tokens; row++) {
    const scores = Float64Array.from({ length: row + 1 }, (_, key) => scale * dot(q!, row, k!, key, size));
    const maximum = scores.reduce((largest, score) => Math.max(largest, score), Number.NEGATIVE_INFINITY);
    const exponentials = scores.map((score) => Math.exp(score - maximum));
    const sum = exponentials.reduce((total, value) => total + value, 0);
    const probabilities = exponentials.map((value) => value / sum);
    for (let key = 0; key <= row; key++) addRow(results.out, row, v!, key, size, probabilities[key]!);
    const delta = dot(dOut!, row, results.out, row, size);
    for (let key = 0; key <= row; key++) {
      const dScore = scale * probabilities[key]! * (dot(dOut!, row, v!, key, size) - delta);
      addRow(results.dQ, row, k!, key, size, dScore);
      addRow(results.dK, key, q!, row, size, dScore);
      addRow(results.dV, key, dOut!, row, size, probabilities[key]!);
    }
  }
  return results;
}
