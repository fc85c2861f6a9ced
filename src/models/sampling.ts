import { PhiloxStream } from "../base/random.ts";

/** How the next token is chosen. */
export interface SamplingOptions {
  /** 0 takes the likeliest token; above, logits are divided by it. */
  readonly temperature?: number;
  /** Only the k likeliest tokens; 0 for all. */
  readonly topK?: number;
  /** Only the likeliest tokens that together reach this probability (Holtzman et al., arXiv 1904.09751). */
  readonly topP?: number;
  readonly seed?: number;
}

/** Chooses tokens; the same seed and logits give the same tokens. */
export class Sampler {
  readonly #temperature: number;
  readonly #topK: number;
  readonly #topP: number;
  readonly #random: PhiloxStream;

  constructor(options: SamplingOptions = {}) {
    this.#temperature = options.temperature ?? 0;
    this.#topK = options.topK ?? 0;
    this.#topP = options.topP ?? 1;
    this.#random = new PhiloxStream(options.seed ?? 0);
  }

  /** The next token for logits `[vocabulary]`; the first of equally likely ones when greedy. */
  next(logits: Float32Array): number {
    if (this.#temperature === 0) return greedy(logits);
    const order = Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
    const kept = this.#topK > 0 ? order.slice(0, this.#topK) : order;
    const largest = logits[kept[0]!]!;
    const weights = kept.map((token) => Math.exp((logits[token]! - largest) / this.#temperature));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let count = 0;
    let mass = 0;
    while (count < kept.length && (count === 0 || mass < this.#topP * total)) mass += weights[count++]!;
    let left = this.#random.nextFloat() * mass;
    for (let index = 0; index < count; index++) {
      left -= weights[index]!;
      if (left < 0) return kept[index]!;
    }
    return kept[count - 1]!;
  }
}

/** The index of the largest logit, the first of equal ones. */
export function greedy(logits: Float32Array): number {
  let best = 0;
  for (let token = 1; token < logits.length; token++) if (logits[token]! > logits[best]!) best = token;
  return best;
}
