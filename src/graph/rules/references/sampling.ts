import { doubleFromBits, philox } from "../../../base/random.ts";
import {
  lowestTemperature,
  maximumLogprobs,
  type SamplingParameter,
  samplingFailures,
  samplingParameters,
  samplingSeeds,
} from "../../ops.ts";
import type { ReferenceRule, ReferenceTensor } from "../reference.ts";
import { checkIndex } from "./common.ts";

/** The parameters of one row by name. */
export type SamplingSettings = Readonly<Record<SamplingParameter, number>>;

/** Tokens that may be drawn, by rising id, and in which proportion. */
export interface TokenDistribution {
  readonly tokens: readonly number[];
  readonly weights: readonly number[];
}

/** Entries `[id, value]` of a row's list. */
function entriesOf(
  name: string,
  [offsets, ids, values]: readonly [ReferenceTensor, ReferenceTensor, ReferenceTensor],
  row: number,
  vocabulary: number,
): [number, number][] {
  const entries: [number, number][] = [];
  for (let at = offsets.values[row]!; at < offsets.values[row + 1]!; at++) {
    entries.push([checkIndex("sample", `${name}_ids`, ids.values[at]!, at, vocabulary), values.values[at]!]);
  }
  return entries;
}

/** Tokens by falling logit, equal ones by rising id. */
function ordered(logits: Float64Array): number[] {
  return Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
}

/**
 * What is drawn from logits `[vocabulary]` that penalties, biases and masks are in already (minus infinity: not
 * allowed), of which at least one is finite. Tokens are ordered by falling logit, equal ones by rising id;
 * `min_p`, then `top_k`, then `top_p` each keep a beginning of that order, `top_p` the shortest whose
 * share of what the others left reaches p.
 */
export function distributionOf(logits: Float64Array, settings: SamplingSettings): TokenDistribution {
  const order = ordered(logits).filter((token) => logits[token]! > Number.NEGATIVE_INFINITY);
  const largest = logits[order[0]!]!;
  const { temperature, min_p: minimum, top_k: most, top_p: share } = settings;
  if (!(temperature >= lowestTemperature)) return { tokens: [order[0]!], weights: [1] };
  const weightOf = (token: number): number => Math.exp((logits[token]! - largest) / temperature);
  const likely = order.filter((token) => weightOf(token) >= Math.min(minimum, 1));
  const top = most >= 1 ? likely.slice(0, most) : likely;
  const mass = top.reduce((sum, token) => sum + weightOf(token), 0);
  let count = 0;
  for (let sum = 0; count < top.length; ) {
    sum += weightOf(top[count++]!);
    if (share < 1 && sum >= share * mass) break;
  }
  const tokens = top.slice(0, count).sort((a, b) => a - b);
  return { tokens, weights: tokens.map(weightOf) };
}

/** The token at `uniform` in [0, 1) of a distribution's cumulative weights. */
export function drawFrom({ tokens, weights }: TokenDistribution, uniform: number): number {
  const target = uniform * weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  for (let index = 0; index < tokens.length; index++) {
    sum += weights[index]!;
    if (sum > target) return tokens[index]!;
  }
  return tokens.at(-1)!;
}

/** The number in [0, 1) that belongs to seeds `[4]` (see `samplingSeeds`). */
export function uniformOf(seeds: ArrayLike<number>): number {
  const words = new Uint32Array(4);
  const [low, high, position, answer] = Array.from(seeds) as [number, number, number, number];
  philox(position, answer, 0, 0, low, high, words);
  return doubleFromBits(words[0]!, words[1]!);
}

/**
 * A row's logits after its mask, its biases `[id, value]` and the penalties on its history `[id, count]`, in this
 * order.
 */
export function adjustLogits(
  raw: Float64Array,
  settings: SamplingSettings,
  mask: Float64Array | undefined,
  biases: readonly (readonly [number, number])[],
  history: readonly (readonly [number, number])[],
): Float64Array {
  const logits = raw.map((logit, token) => {
    const allowed = mask === undefined || (mask[token >>> 5]! >>> (token & 31)) & 1;
    return allowed ? logit : Number.NEGATIVE_INFINITY;
  });
  for (const [token, value] of biases) logits[token]! += value;
  const {
    repetition_penalty: repetition,
    frequency_penalty: frequency,
    presence_penalty: presence,
  } = settings;
  for (const [token, count] of history) {
    const logit = logits[token]!;
    const repeated = logit > 0 ? logit / repetition : logit * repetition;
    logits[token] = repeated - frequency * count - (count > 0 ? presence : 0);
  }
  return logits;
}

/** Meaning of the sampling op: everything sorted, nothing skipped. */
export const samplingReferences: { readonly sample: ReferenceRule<"sample"> } = {
  sample: ([logits, parameters, seeds, ...others]) => {
    const [rows, vocabulary] = logits!.shape as [number, number];
    const history = [others[0]!, others[1]!, others[2]!] as const;
    const bias = [others[3]!, others[4]!, others[5]!] as const;
    const [masks, maskRows] = [others[6]!, others[7]!];
    const words = masks.shape[1]!;
    const tokens = new Float64Array(rows);
    const logprobs = new Float64Array(rows);
    const topTokens = new Float64Array(rows * maximumLogprobs).fill(-1);
    const topLogprobs = new Float64Array(rows * maximumLogprobs);
    for (let row = 0; row < rows; row++) {
      const raw = logits!.values.subarray(row * vocabulary, (row + 1) * vocabulary);
      const columns = samplingParameters.length;
      const settings = Object.fromEntries(
        samplingParameters.map((name, column) => [name, parameters!.values[row * columns + column]!]),
      ) as Record<SamplingParameter, number>;
      const maskRow = maskRows.values[row]!;
      if (maskRow !== -1) checkIndex("sample", "mask_rows", maskRow, row, masks.shape[0]!);
      const mask = maskRow === -1 ? undefined : masks.values.subarray(maskRow * words, (maskRow + 1) * words);
      const adjusted = adjustLogits(
        raw,
        settings,
        mask,
        entriesOf("bias", bias, row, vocabulary),
        entriesOf("history", history, row, vocabulary),
      );
      const broken = (logit: number): boolean => Number.isNaN(logit) || logit === Number.POSITIVE_INFINITY;
      if (raw.some(broken) || adjusted.some(broken)) {
        tokens[row] = samplingFailures.notFinite;
        continue;
      }
      if (adjusted.every((logit) => logit === Number.NEGATIVE_INFINITY)) {
        tokens[row] = samplingFailures.nothingAllowed;
        continue;
      }
      const own = seeds!.values.subarray(row * samplingSeeds.length, (row + 1) * samplingSeeds.length);
      const token = drawFrom(distributionOf(adjusted, settings), uniformOf(own));
      tokens[row] = token;
      if (!(settings.logprobs >= 0)) continue;
      const order = ordered(raw);
      const largest = raw[order[0]!]!;
      const logsumexp = largest + Math.log(raw.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
      logprobs[row] = raw[token]! - logsumexp;
      order.slice(0, Math.min(settings.logprobs, maximumLogprobs)).forEach((likely, index) => {
        if (raw[likely] === Number.NEGATIVE_INFINITY) return;
        topTokens[row * maximumLogprobs + index] = likely;
        topLogprobs[row * maximumLogprobs + index] = raw[likely]! - logsumexp;
      });
    }
    return [tokens, logprobs, topTokens, topLogprobs];
  },
};
