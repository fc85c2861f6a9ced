import { maximumLogprobs, samplingParameters } from "../../../src/graph/ops.ts";
import type { SamplingSettings } from "../../../src/graph/rules/references/sampling.ts";
import { integers, normal, randomIntegers, type SampleTensor, tensor } from "./draw.ts";
import type { OpSamples, Sample } from "./sample.ts";

const neutral: SamplingSettings = {
  temperature: 1,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  logprobs: -1,
};

/** A row of a sample: what differs from neutral, and its lists. */
interface Row extends Partial<SamplingSettings> {
  readonly history?: readonly (readonly [id: number, count: number])[];
  readonly bias?: readonly (readonly [id: number, value: number])[];
  readonly mask?: number;
}

/** Offsets, ids and values of lists one after another. */
function lists(
  rows: readonly (readonly (readonly [number, number])[])[],
): [SampleTensor, number[], number[]] {
  const offsets = [0];
  for (const row of rows) offsets.push(offsets.at(-1)! + row.length);
  const flat = rows.flat();
  return [integers([offsets.length], offsets), flat.map(([id]) => id), flat.map(([, value]) => value)];
}

function sampleOf(name: string, logits: SampleTensor, rows: readonly Row[]): Sample<"sample"> {
  const words = Math.ceil(logits.shape[1]! / 32);
  const parameters = rows.flatMap((row) =>
    samplingParameters.map((column) => row[column] ?? neutral[column]),
  );
  const [historyOffsets, historyIds, counts] = lists(rows.map((row) => row.history ?? []));
  const [biasOffsets, biasIds, biases] = lists(rows.map((row) => row.bias ?? []));
  return {
    name,
    forwardOnly: true,
    reduction: logits.shape[1]!,
    attributes: {},
    inputs: [
      logits,
      tensor([rows.length, samplingParameters.length], "f32", parameters),
      randomIntegers([rows.length, 4], 0, 2 ** 31),
      historyOffsets,
      integers([historyIds.length], historyIds),
      integers([counts.length], counts),
      biasOffsets,
      integers([biasIds.length], biasIds),
      tensor([biases.length], "f32", biases),
      randomIntegers([2, words], -(2 ** 31), 2 ** 31),
      integers(
        [rows.length],
        rows.map((row) => row.mask ?? -1),
      ),
    ],
  };
}

/** Samples of the sampling op. */
export const samplingSamples: { readonly sample: OpSamples<"sample"> } = {
  sample: {
    dtypes: ["f32"],
    make: () => [
      sampleOf("one token", normal([2, 1], "f32"), [{ temperature: 0, logprobs: 3 }, { logprobs: 0 }]),
      sampleOf("greedy", normal([3, 37], "f32", 3), [
        { temperature: 0, logprobs: 5 },
        { temperature: 0, mask: 1, top_k: 3 },
        {
          temperature: 0,
          repetition_penalty: 1.5,
          history: [
            [3, 0],
            [36, 2],
          ],
        },
      ]),
      sampleOf("each limit alone", normal([6, 70], "f32", 2), [
        { temperature: 0.7 },
        { top_k: 5 },
        { top_p: 0.8 },
        { min_p: 0.1 },
        { mask: 0 },
        {
          bias: [
            [4, 5],
            [69, Number.NEGATIVE_INFINITY],
          ],
        },
      ]),
      sampleOf("everything at once, over blocks", normal([3, 1003], "f32", 3), [
        {
          temperature: 1.3,
          top_k: 40,
          top_p: 0.9,
          min_p: 0.01,
          repetition_penalty: 1.1,
          presence_penalty: 0.5,
          frequency_penalty: 0.25,
          logprobs: maximumLogprobs,
          mask: 1,
          history: [
            [0, 1],
            [5, 0],
            [1002, 7],
          ],
          bias: [
            [7, -3],
            [1000, 4],
          ],
        },
        { temperature: 5, top_k: 500, logprobs: 1 },
        { temperature: 3, top_p: 0.99, mask: 0, logprobs: 0 },
      ]),
    ],
  },
};
