import { createNode } from "../graph/graph.ts";
import { derive, type Tensor } from "./tensor.ts";

/**
 * How each row of logits is sampled. Lists of a row are `ids[offsets[row]]` to `ids[offsets[row + 1] - 1]` with
 * the values beside them; each id stands in a list once.
 */
export interface SamplingBatch {
  /** f32 `[rows, 8]`: the columns are `samplingParameters`. */
  readonly parameters: Tensor;
  /**
   * i32 `[rows, 4]`: the columns are `samplingSeeds`. The two words of the request's seed, the position of the
   * token in its answer, and which answer it is: the same four draw the same number, whatever else is in the batch.
   */
  readonly seeds: Tensor;
  /** i32 `[rows + 1]` into the history: the distinct tokens of a row's prompt and answer. */
  readonly historyOffsets: Tensor;
  readonly historyIds: Tensor;
  /** i32: how often the token is in the answer; 0 where it is in the prompt alone. */
  readonly historyCounts: Tensor;
  /** i32 `[rows + 1]` into the biases. */
  readonly biasOffsets: Tensor;
  readonly biasIds: Tensor;
  /** f32: added to the token's logit; minus infinity bans it. */
  readonly biasValues: Tensor;
  /** i32 `[masks, ceil(vocabulary / 32)]`: bit `id % 32` of word `id / 32` is set for tokens that are allowed. */
  readonly masks: Tensor;
  /** i32 `[rows]`: the mask of each row, -1 for none. */
  readonly maskRows: Tensor;
}

/** What `sample` gives. */
export interface Samples {
  /** i32 `[rows]`: the chosen token, or one of `samplingFailures`. */
  readonly tokens: Tensor;
  /** f32 `[rows]`: its log-probability; 0 where not wanted. */
  readonly logprobs: Tensor;
  /** i32 `[rows, maximumLogprobs]`: the likeliest tokens, as many as wanted, then -1. */
  readonly topTokens: Tensor;
  /** f32 `[rows, maximumLogprobs]`: their log-probabilities, then 0. */
  readonly topLogprobs: Tensor;
}

/**
 * Chooses the next token for each row of logits f32 `[rows, vocabulary]`. In this order: mask, biases, penalties
 * (repetition: Keskar et al., arXiv 1909.05858; frequency and presence: OpenAI's), temperature, `min_p` (Minh
 * et al., arXiv 2407.01082), `top_k` (Fan et al., arXiv 1805.04833), `top_p` (Holtzman et al., arXiv 1904.09751),
 * draw. Log-probabilities are those of the logits as they came.
 */
export function sample(logits: Tensor, batch: SamplingBatch): Samples {
  const tensors = [
    logits,
    batch.parameters,
    batch.seeds,
    batch.historyOffsets,
    batch.historyIds,
    batch.historyCounts,
    batch.biasOffsets,
    batch.biasIds,
    batch.biasValues,
    batch.masks,
    batch.maskRows,
  ];
  const node = createNode(
    "sample",
    tensors.map((tensor) => tensor.value),
    {},
  );
  const output = (index: number): Tensor => derive({ node, index }, ...tensors);
  return { tokens: output(0), logprobs: output(1), topTokens: output(2), topLogprobs: output(3) };
}
