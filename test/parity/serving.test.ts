import { existsSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { loadTokenizer } from "../../src/data/index.ts";
import { generate, loadModel, type Model } from "../../src/index.ts";
import type { EngineSettings } from "../../src/serve/engine/options.ts";
import {
  answersOf,
  createEngine,
  goldenFolder,
  greedyTokens,
  piecesOf,
  storyFolder,
} from "../support/serving.ts";

const answerLength = 24;

/** One request after the other through the model's own cache: what every batch must agree with. */
async function alone(model: Model, prompts: readonly (readonly number[])[]): Promise<number[][]> {
  const answers: number[][] = [];
  for (const prompt of prompts) {
    const ids: number[] = [];
    for await (const id of generate(model, prompt, { maxTokens: answerLength })) ids.push(id);
    answers.push(ids);
  }
  return answers;
}

/** Prompts of awkward lengths, some of which begin alike. */
function makePrompts(vocabularySize: number): number[][] {
  const draw = (length: number, seed: number): number[] =>
    Array.from(
      { length },
      (_, index) => 3 + ((index * 37 + seed * 101 + index * index * 7) % (vocabularySize - 3)),
    );
  const shared = draw(33, 1);
  return [
    [1],
    draw(5, 2),
    draw(16, 3),
    draw(17, 4),
    draw(64, 5),
    shared,
    [...shared, 9, 10],
    [...shared, 9, 11, 12],
  ];
}

afterEach(() => {
  vi.unstubAllEnvs();
});

const small = { maximumSequences: 8, maximumContext: 128 } as const;
const forced = "SLIPSTREAM_SERVE_FORCE_PREEMPTION";
const settings: readonly [string, EngineSettings, string?][] = [
  ["batched", {}],
  ["one at a time", { maximumSequences: 1, tokenBudget: 1 }],
  ["budget of 8", { tokenBudget: 8 }],
  ["budget of 64", { tokenBudget: 64 }],
  ["budget of 512", { tokenBudget: 512 }],
  ["two sequences and a budget of 7", { maximumSequences: 2, tokenBudget: 7 }],
  ["blocks of 1", { blockSize: 1 }],
  ["blocks of 64", { blockSize: 64 }],
  ["no prefix cache", { prefixCaching: false }],
  ["whole prompts first", { policy: "prefill-first", tokenBudget: 32 }],
  ["a cache that is too small for all", { blocks: 16, blockSize: 8, tokenBudget: 32 }],
  ["preemption every 3 steps", { tokenBudget: 16 }, "3"],
  ["preemption without prefix cache", { tokenBudget: 16, prefixCaching: false }, "5"],
];

function describeModel(name: string, folder: string): void {
  describe.skipIf(!existsSync(folder))(`${name}: greedy tokens are those of one request alone`, () => {
    let model: Model;
    let prompts: number[][];
    let expected: number[][];
    beforeAll(async () => {
      model = await loadModel(folder);
      prompts = makePrompts(model.facts.vocabularySize);
      expected = await alone(model, prompts);
    });

    test.each(settings)("%s", async (_name, options, preemption) => {
      vi.stubEnv("SLIPSTREAM_SERVE_CHECK", "1");
      if (preemption !== undefined) vi.stubEnv(forced, preemption);
      const engine = await createEngine(model, { ...small, ...options });
      try {
        expect(await greedyTokens(engine, prompts, answerLength)).toEqual(expected);
        // Once more, with what the prefix cache kept.
        expect(await greedyTokens(engine, prompts, answerLength)).toEqual(expected);
        const { running, waiting, cacheUsage, preemptions, prefixHits } = engine.statistics;
        expect({ running, waiting, cacheUsage }).toEqual({ running: 0, waiting: 0, cacheUsage: 0 });
        if (preemption !== undefined) expect(preemptions).toBeGreaterThan(5);
        if (options.prefixCaching === false) expect(prefixHits).toBe(0);
        else expect(prefixHits).toBeGreaterThan(50);
      } finally {
        await engine.dispose();
      }
    });
  });
}

describeModel("stories260K", storyFolder);
describeModel("grouped heads and a sliding window (Mistral)", goldenFolder("mistral"));

describe("log-probabilities", () => {
  test.each(["native", "reference"] as const)("are those of model.forward, %s", async (backend) => {
    const model = await loadModel(goldenFolder("mistral"), { backend });
    const engine = await createEngine(model, { ...small, maximumContext: 32, tokenBudget: 8, blockSize: 4 });
    const prompt = [5, 9, 33, 70, 12, 99, 2, 41, 8, 17, 60];
    const pieces = await piecesOf(engine.generate({ prompt, maxTokens: 6, temperature: 0, logprobs: 20 }));
    const ids = pieces.flatMap(({ tokens }) => tokens);
    const found = pieces.flatMap(({ logprobs }) => logprobs ?? []);
    expect(ids).toHaveLength(6);
    const { vocabularySize } = model.facts;
    const logits = (await (await model.forward([[...prompt, ...ids]])).data()) as Float32Array;
    for (const [index, { token, logprob, top }] of found.entries()) {
      const row = Array.from(
        logits.subarray((prompt.length - 1 + index) * vocabularySize).slice(0, vocabularySize),
      );
      const largest = Math.max(...row);
      const total = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0)) + largest;
      const order = row.map((_, id) => id).sort((a, b) => row[b]! - row[a]!);
      expect(token).toBe(order[0]);
      expect(Math.abs(logprob - (row[token]! - total))).toBeLessThan(2e-4 * largest);
      expect(top.map((each) => each.token)).toEqual(order.slice(0, 20));
      for (const each of top) {
        expect(Math.abs(each.logprob - (row[each.token]! - total))).toBeLessThan(2e-4 * largest);
      }
    }
    await engine.dispose();
  });
});

describe("a cache in int8", () => {
  test("gives the same tokens however the batch is made up", async () => {
    const model = await loadModel(goldenFolder("mistral"));
    const prompts = makePrompts(model.facts.vocabularySize);
    const runs: number[][][] = [];
    for (const options of [
      { maximumSequences: 1, prefixCaching: false },
      { tokenBudget: 9, blockSize: 4 },
    ]) {
      const engine = await createEngine(model, { ...small, ...options, cacheDtype: "int8" });
      runs.push(await greedyTokens(engine, prompts, answerLength));
      await engine.dispose();
    }
    expect(runs[1]).toEqual(runs[0]);
  });

  test("is copied with its scales where answers part: blocks of 1 are never copied", async () => {
    const model = await loadModel(goldenFolder("mistral"));
    const [prompt] = makePrompts(model.facts.vocabularySize).filter(({ length }) => length === 17);
    const runs: unknown[] = [];
    for (const blockSize of [1, 4]) {
      const engine = await createEngine(model, { ...small, blockSize, cacheDtype: "int8" });
      runs.push(await answersOf(engine, { prompt: prompt!, maxTokens: 12, n: 4, seed: 1 }));
      await engine.dispose();
    }
    expect(runs[1]).toEqual(runs[0]);
  });

  test("changes log-probabilities by little", async () => {
    const model = await loadModel(goldenFolder("mistral"));
    const [prompt] = makePrompts(model.facts.vocabularySize).filter(({ length }) => length === 64);
    const found: Map<number, number>[] = [];
    for (const cacheDtype of ["f32", "int8"] as const) {
      const engine = await createEngine(model, { ...small, cacheDtype });
      const [piece] = await piecesOf(
        engine.generate({ prompt: prompt!, maxTokens: 1, temperature: 0, logprobs: 20 }),
      );
      found.push(new Map(piece!.logprobs![0]!.top.map(({ token, logprob }) => [token, logprob])));
      await engine.dispose();
    }
    const [exact, rounded] = found as [Map<number, number>, Map<number, number>];
    const differences = [...exact]
      .filter(([token]) => rounded.has(token))
      .map(([token, logprob]) => Math.abs(rounded.get(token)! - logprob));
    expect(differences.length).toBeGreaterThan(15);
    expect(Math.max(...differences)).toBeLessThan(0.05);
    expect(Math.max(...differences)).toBeGreaterThan(0);
  });
});

test("the reference backend gives the native tokens, with answers that part and blocks that are copied", async () => {
  const prompts = [
    [5, 9, 33, 70, 12, 99],
    [5, 9, 33, 70, 12, 98, 4],
  ];
  const runs: unknown[] = [];
  for (const backend of ["native", "reference"] as const) {
    const model = await loadModel(goldenFolder("mistral"), { backend });
    const engine = await createEngine(model, {
      maximumSequences: 4,
      maximumContext: 24,
      tokenBudget: 5,
      blockSize: 4,
    });
    const requests = prompts.map((prompt) =>
      answersOf(engine, { prompt, maxTokens: 8, temperature: 1.5, seed: 7, n: 2 }),
    );
    runs.push(await Promise.all(requests));
    await engine.dispose();
  }
  expect(runs[0]).toEqual(runs[1]);
});

describe.skipIf(!existsSync(storyFolder))("stories260K with its tokenizer", () => {
  test("the text is what the tokenizer makes of the tokens", async () => {
    const model = await loadModel(storyFolder);
    const tokenizer = await loadTokenizer(storyFolder);
    const engine = await createEngine(model, { ...small, tokenizer, endTokens: [2] });
    const prompt = "Once upon a time";
    const [answer] = await answersOf(engine, { prompt, maxTokens: 60, temperature: 0 });
    const ids = [...tokenizer.encode(prompt), ...answer!.tokens];
    expect(prompt + answer!.text).toBe(tokenizer.decode(ids));
    await engine.dispose();
  });
});
