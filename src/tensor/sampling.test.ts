import { describe, expect, test } from "vitest";
import { createNativeBackend, createReferenceBackend } from "../backends.ts";
import type { DType, TensorData } from "../base/dtype.ts";
import { type Shape, symbolic } from "../base/shape.ts";
import { leaf } from "../graph/build.ts";
import { buildGraph } from "../graph/graph.ts";
import { maximumLogprobs, samplingFailures, samplingParameters } from "../graph/ops.ts";
import { sample } from "./sampling.ts";
import { Tensor } from "./tensor.ts";

/** One program for any number of rows, lists of any length and any number of masks, as serving has it. */
const [bound, vocabulary] = [4, 40];
const rows = symbolic("rows", bound);
const offsets = symbolic("offsets", bound + 1);
const history = symbolic("history", 16);
const biases = symbolic("biases", 16);
const input = (name: string, dtype: DType, shape: Shape) => new Tensor(leaf(name, "input", shape, dtype));
const samples = sample(input("logits", "f32", [rows, vocabulary]), {
  parameters: input("parameters", "f32", [rows, samplingParameters.length]),
  seeds: input("seeds", "i32", [rows, 4]),
  historyOffsets: input("history_offsets", "i32", [offsets]),
  historyIds: input("history_ids", "i32", [history]),
  historyCounts: input("history_counts", "i32", [history]),
  biasOffsets: input("bias_offsets", "i32", [offsets]),
  biasIds: input("bias_ids", "i32", [biases]),
  biasValues: input("bias_values", "f32", [biases]),
  masks: input("masks", "i32", [symbolic("masks", bound), 2]),
  maskRows: input("mask_rows", "i32", [rows]),
});
const graph = buildGraph("sample", [
  { name: "tokens", value: samples.tokens.value },
  { name: "logprobs", value: samples.logprobs.value },
  { name: "top_tokens", value: samples.topTokens.value },
  { name: "top_logprobs", value: samples.topLogprobs.value },
]);

describe.each([
  ["native", createNativeBackend],
  ["reference", createReferenceBackend],
])("sample on %s", (_name, create) => {
  const backend = create();
  const executable = backend.compile(graph);
  const outputs = {
    tokens: new Int32Array(bound),
    logprobs: new Float32Array(bound),
    top_tokens: new Int32Array(bound * maximumLogprobs),
    top_logprobs: new Float32Array(bound * maximumLogprobs),
  };
  /** Greedy rows over equal logits, but for token 3 at 2, with one log-probability each. */
  const run = async (count: number, more: Record<string, TensorData>, masks = 0): Promise<number[]> => {
    const logits = new Float32Array(count * vocabulary);
    const parameters = new Float32Array(count * samplingParameters.length);
    for (let row = 0; row < count; row++) {
      logits[row * vocabulary + 3] = 2;
      parameters.set([0, 0, 1, 0, 1, 1, 0.5, 1], row * samplingParameters.length);
    }
    const bindings: Record<string, TensorData> = {
      logits,
      parameters,
      seeds: new Int32Array(count * 4),
      history_offsets: new Int32Array(count + 1),
      history_ids: new Int32Array(0),
      history_counts: new Int32Array(0),
      bias_offsets: new Int32Array(count + 1),
      bias_ids: new Int32Array(0),
      bias_values: new Float32Array(0),
      masks: new Int32Array(masks * 2),
      mask_rows: new Int32Array(count).fill(-1),
      ...outputs,
      ...more,
    };
    await executable.run(bindings, {
      rows: count,
      offsets: count + 1,
      history: bindings.history_ids!.length,
      biases: bindings.bias_ids!.length,
      masks,
    });
    return [...outputs.tokens.subarray(0, count)];
  };

  test("no lists and no masks", async () => {
    expect(await run(2, {})).toEqual([3, 3]);
    // e^2 among 39 ones.
    const expected = 2 - Math.log(Math.exp(2) + 39);
    expect(outputs.logprobs[1]).toBeCloseTo(expected, 6);
    expect(outputs.top_tokens[maximumLogprobs]).toBe(3);
    expect(outputs.top_logprobs[maximumLogprobs]).toBeCloseTo(expected, 6);
    expect(outputs.top_tokens[maximumLogprobs + 1]).toBe(-1);
  });

  test("lists and masks of some rows", async () => {
    const tokens = await run(
      4,
      {
        // Row 1: token 3 twice in the answer, 2 - 2 * 0.5 - 1 = 0 as all others; token 0 in the prompt alone.
        history_offsets: Int32Array.of(0, 0, 2, 2, 2),
        history_ids: Int32Array.of(3, 0),
        history_counts: Int32Array.of(2, 0),
        // Row 2: token 7 at 3.
        bias_offsets: Int32Array.of(0, 0, 0, 1, 1),
        bias_ids: Int32Array.of(7),
        bias_values: Float32Array.of(3),
        // Row 3: tokens 35 and 39 alone.
        masks: Int32Array.of(0, (1 << 3) | (1 << 7)),
        mask_rows: Int32Array.of(-1, -1, -1, 0),
      },
      1,
    );
    expect(tokens).toEqual([3, 0, 7, 35]);
  });

  test("a mask of nothing, and no rows at all", async () => {
    expect(await run(1, { mask_rows: Int32Array.of(0) }, 1)).toEqual([samplingFailures.nothingAllowed]);
    expect(await run(0, {})).toEqual([]);
  });
});
