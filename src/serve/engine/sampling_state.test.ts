import { describe, expect, test } from "vitest";
import { samplingParameters, samplingSeeds } from "../../graph/ops.ts";
import { checkRequest } from "./request_checks.ts";
import { SamplingState } from "./sampling_state.ts";
import type { GenerateRequest } from "./types.ts";

const prompt = [4, 9, 4];

function stateOf(request: Partial<GenerateRequest>, seed = 0): SamplingState {
  const limits = { vocabularySize: 100, maximumContext: 1000, maximumSequences: 4 };
  const checked = checkRequest({ prompt, ...request }, prompt, limits);
  return new SamplingState(checked, prompt, { seed, answer: 3, ending: [2, 7] });
}

const listed = ({ ids, counts }: SamplingState["history"]): Record<number, number> =>
  Object.fromEntries(Array.from(ids, (id, index) => [id, counts[index]!]));

const biased = (state: SamplingState, constrained = false): Record<number, number> => {
  const { ids, values } = state.biases(constrained);
  return Object.fromEntries(Array.from(ids, (id, index) => [id, values[index]!]));
};

describe("what the op is told of a request", () => {
  test("parameters stand in its columns; without any they change nothing", () => {
    const row = (state: SamplingState): Record<string, number> =>
      Object.fromEntries(samplingParameters.map((name, column) => [name, state.parameters[column]!]));
    expect(row(stateOf({}))).toEqual({
      temperature: 1,
      top_k: 0,
      top_p: 1,
      min_p: 0,
      repetition_penalty: 1,
      presence_penalty: 0,
      frequency_penalty: 0,
      logprobs: -1,
    });
    const all = stateOf({
      temperature: 0.5,
      topK: 40,
      topP: 0.25,
      minP: 0.125,
      repetitionPenalty: 1.5,
      presencePenalty: 0.75,
      frequencyPenalty: -0.5,
      logprobs: 5,
    });
    expect(Object.values(row(all))).toEqual([0.5, 40, 0.25, 0.125, 1.5, 0.75, -0.5, 5]);
  });

  test("seeds keep all their bits, and answers have numbers", () => {
    const column = (name: (typeof samplingSeeds)[number]) => samplingSeeds.indexOf(name);
    for (const seed of [0, 1, 2 ** 31, 2 ** 53 - 1, -1, -(2 ** 53) + 1]) {
      const { seeds } = stateOf({}, seed);
      expect(seeds[column("seed_low")]! >>> 0).toBe(Number(BigInt.asUintN(32, BigInt(seed))));
      expect(seeds[column("seed_high")]).toBe(Number(BigInt.asIntN(32, BigInt(seed) >> 32n)));
      expect(seeds[column("answer")]).toBe(3);
    }
  });

  test("the history holds each token once, of the prompt only for the repetition penalty", () => {
    const repetition = stateOf({ repetitionPenalty: 1.5 });
    expect(listed(repetition.history)).toEqual({ 4: 0, 9: 0 });
    const presence = stateOf({ presencePenalty: 1 });
    const none = stateOf({});
    for (const state of [repetition, presence, none]) for (const token of [9, 11, 11]) state.accept(token);
    expect(listed(repetition.history)).toEqual({ 4: 0, 9: 1, 11: 2 });
    expect(listed(presence.history)).toEqual({ 9: 1, 11: 2 });
    expect(listed(none.history)).toEqual({});
    const many = stateOf({ frequencyPenalty: 1 });
    for (let token = 0; token < 100; token++) many.accept(token);
    expect(Object.keys(listed(many.history))).toHaveLength(100);
  });

  test("tokens that would end the answer are banned before minTokens, unless a grammar decides", () => {
    const state = stateOf({
      minTokens: 2,
      logitBias: new Map([
        [7, 5],
        [8, -5],
      ]),
    });
    const banned = Number.NEGATIVE_INFINITY;
    expect(biased(state)).toEqual({ 2: banned, 7: banned, 8: -5 });
    expect(biased(state, true)).toEqual({ 7: 5, 8: -5 });
    state.accept(1);
    expect(biased(state)).toEqual({ 2: banned, 7: banned, 8: -5 });
    state.accept(1);
    expect(biased(state)).toEqual({ 7: 5, 8: -5 });
    expect(state.position).toBe(2);
  });
});
