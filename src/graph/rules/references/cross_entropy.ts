import type { ReferenceTensor } from "../reference.ts";
import { checkIndex } from "./common.ts";

/** Per row of logits [T, V]: the loss at the target (0 where it is -1) and the log of the sum of exponentials. */
export function crossEntropy(
  op: string,
  logits: ReferenceTensor,
  targets: ReferenceTensor,
): { readonly losses: Float64Array; readonly logsumexp: Float64Array } {
  const [rows, vocabulary] = logits.shape as [number, number];
  const losses = new Float64Array(rows);
  const logsumexp = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const start = row * vocabulary;
    let maximum = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < vocabulary; i++) maximum = Math.max(maximum, logits.values[start + i]!);
    let sum = 0;
    for (let i = 0; i < vocabulary; i++) sum += Math.exp(logits.values[start + i]! - maximum);
    logsumexp[row] = maximum + Math.log(sum);
    if (targets.values[row] === -1) continue;
    const target = checkIndex(op, "targets", targets.values[row]!, row, vocabulary);
    losses[row] = logsumexp[row]! - logits.values[start + target]!;
  }
  return { losses, logsumexp };
}

/** (softmax(logits) - one-hot(target)) times the row's gradient; zeros where the target is -1. */
export function crossEntropyGradient(
  op: string,
  dLosses: Float64Array,
  logits: ReferenceTensor,
  targets: ReferenceTensor,
  logsumexp: Float64Array,
): Float64Array {
  const [rows, vocabulary] = logits.shape as [number, number];
  const result = new Float64Array(rows * vocabulary);
  for (let row = 0; row < rows; row++) {
    if (targets.values[row] === -1) continue;
    const target = checkIndex(op, "targets", targets.values[row]!, row, vocabulary);
    for (let i = row * vocabulary; i < (row + 1) * vocabulary; i++) {
      result[i] = dLosses[row]! * Math.exp(logits.values[i]! - logsumexp[row]!);
    }
    result[row * vocabulary + target]! -= dLosses[row]!;
  }
  return result;
}
