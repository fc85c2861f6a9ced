/** Attention in float64, as its definition has it: what the kernels' tests compare with. */

/** The sizes and masks of a call, as in docs/kernels.md. */
export interface AttentionCase {
  readonly offsets: readonly number[];
  readonly heads: number;
  readonly groups: number;
  readonly size: number;
  readonly scale: number;
  readonly causal: boolean;
  readonly window: number;
}

type Numbers = Float64Array;

function sees(options: AttentionCase, query: number, key: number): boolean {
  if (options.causal && key > query) return false;
  return options.window === 0 || query - key < options.window;
}

/** Calls `visit` for every query row with its weights over the sequence's keys. */
function eachRow(
  options: AttentionCase,
  q: Numbers,
  k: Numbers,
  visit: (row: {
    start: number;
    query: number;
    head: number;
    group: number;
    weights: Numbers;
    logsumexp: number;
  }) => void,
  firstQuery = 0,
): void {
  const { offsets, heads, groups, size, scale } = options;
  for (let sequence = 0; sequence + 1 < offsets.length; sequence++) {
    const start = offsets[sequence]!;
    const length = offsets[sequence + 1]! - start;
    for (let head = 0; head < heads; head++) {
      const group = Math.floor((head * groups) / heads);
      for (let query = firstQuery; query < length; query++) {
        const weights = new Float64Array(length);
        let top = -Infinity;
        for (let key = 0; key < length; key++) {
          let score = 0;
          for (let d = 0; d < size; d++) {
            score +=
              q[((start + query) * heads + head) * size + d]! *
              k[((start + key) * groups + group) * size + d]!;
          }
          weights[key] = sees(options, query, key) ? score * scale : -Infinity;
          top = Math.max(top, weights[key]!);
        }
        const sum = weights.reduce((total, score) => total + Math.exp(score - top), 0);
        for (let key = 0; key < length; key++) weights[key] = Math.exp(weights[key]! - top) / sum;
        visit({ start, query, head, group, weights, logsumexp: top + Math.log(sum) });
      }
    }
  }
}

/** out [T, H, D] and logsumexp [H, T]; zeros for the queries of each sequence before `firstQuery`. */
export function attentionReference(
  options: AttentionCase,
  q: Numbers,
  k: Numbers,
  v: Numbers,
  firstQuery = 0,
): { out: Numbers; logsumexp: Numbers } {
  const { heads, groups, size, offsets } = options;
  const tokens = offsets.at(-1)!;
  const out = new Float64Array(q.length);
  const logsumexps = new Float64Array(heads * tokens);
  const visit: Parameters<typeof eachRow>[3] = ({ start, query, head, group, weights, logsumexp }) => {
    logsumexps[head * tokens + start + query] = logsumexp;
    for (let d = 0; d < size; d++) {
      let sum = 0;
      for (let key = 0; key < weights.length; key++) {
        sum += weights[key]! * v[((start + key) * groups + group) * size + d]!;
      }
      out[((start + query) * heads + head) * size + d] = sum;
    }
  };
  eachRow(options, q, k, visit, firstQuery);
  return { out, logsumexp: logsumexps };
}

/** The gradients of sum(out * dOut) by q, k and v. */
export function attentionGradientReference(
  options: AttentionCase,
  dOut: Numbers,
  q: Numbers,
  k: Numbers,
  v: Numbers,
): { dQ: Numbers; dK: Numbers; dV: Numbers } {
  const { heads, groups, size, scale } = options;
  const dQ = new Float64Array(q.length);
  const dK = new Float64Array(k.length);
  const dV = new Float64Array(v.length);
  eachRow(options, q, k, ({ start, query, head, group, weights }) => {
    const row = ((start + query) * heads + head) * size;
    const dWeights = weights.map((_, key) => {
      let sum = 0;
      for (let d = 0; d < size; d++) sum += dOut[row + d]! * v[((start + key) * groups + group) * size + d]!;
      return sum;
    });
    const mean = weights.reduce((total, weight, key) => total + weight * dWeights[key]!, 0);
    for (let key = 0; key < weights.length; key++) {
      const column = ((start + key) * groups + group) * size;
      const dScore = scale * weights[key]! * (dWeights[key]! - mean);
      for (let d = 0; d < size; d++) {
        dV[column + d]! += weights[key]! * dOut[row + d]!;
        dQ[row + d]! += dScore * k[column + d]!;
        dK[column + d]! += dScore * q[row + d]!;
      }
    }
  });
  return { dQ, dK, dV };
}
