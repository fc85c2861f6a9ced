import { ShapeError } from "../../../base/errors.ts";
import type { ReferenceTensor } from "../reference.ts";

/** Fails unless offsets begin at 0, never fall, and end at `tokens`. */
export function checkOffsets(op: string, operand: string, offsets: Float64Array, tokens: number): void {
  const broken =
    offsets[0] !== 0 ||
    offsets.at(-1) !== tokens ||
    offsets.some((offset, index) => index > 0 && offset < offsets[index - 1]!);
  if (!broken) return;
  throw new ShapeError("bad_offsets", `${op}: ${operand} do not divide the tokens into sequences`, {
    expected: `numbers that begin at 0, never fall, and end at ${tokens}`,
    received: `[${offsets.join(", ")}]`,
  });
}

/** Dot product of `size` elements of two buffers. */
export function dot(a: Float64Array, aStart: number, b: Float64Array, bStart: number, size: number): number {
  let sum = 0;
  for (let i = 0; i < size; i++) sum += a[aStart + i]! * b[bStart + i]!;
  return sum;
}

/** Adds `factor` times `size` elements of `source` to `target`. */
export function addScaled(
  target: Float64Array,
  targetStart: number,
  source: Float64Array,
  sourceStart: number,
  size: number,
  factor: number,
): void {
  for (let i = 0; i < size; i++) target[targetStart + i]! += factor * source[sourceStart + i]!;
}

/** Turns scores into probabilities in place; returns the log of the sum of their exponentials. */
export function normalise(scores: Float64Array): number {
  let maximum = Number.NEGATIVE_INFINITY;
  for (const score of scores) maximum = Math.max(maximum, score);
  let sum = 0;
  for (const score of scores) sum += Math.exp(score - maximum);
  for (let i = 0; i < scores.length; i++) scores[i] = Math.exp(scores[i]! - maximum) / sum;
  return maximum + Math.log(sum);
}

/** The sizes of an attention over q [tokens, heads, size] and k [keys, groups, size]. */
export function sizesOf(q: ReferenceTensor, k: ReferenceTensor) {
  const [tokens, heads, size] = q.shape as [number, number, number];
  const groups = k.shape[1]!;
  return { tokens, heads, size, groups, share: heads / groups };
}
