import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import {
  answersOf,
  createEngine,
  goldenFolder,
  letterTokenizer,
  piecesOf,
} from "../../../test/support/serving.ts";
import { loadModel, type Model } from "../../index.ts";
import { Trace } from "../../runtime/trace.ts";
import type { TokenConstraint } from "../structured/types.ts";
import type { Engine } from "./engine.ts";
import type { EngineSettings } from "./options.ts";
import type { EngineObserver, GenerateRequest, Piece, RequestReport, StepReport } from "./types.ts";

let model: Model;
let engine: Engine | undefined;

beforeAll(async () => {
  model = await loadModel(goldenFolder("llama"));
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await engine?.dispose();
  engine = undefined;
});

type Options = Parameters<typeof createEngine>[1];

async function start(options: Options = {}): Promise<Engine> {
  vi.stubEnv("SLIPSTREAM_SERVE_CHECK", "1");
  engine = await createEngine(model, {
    maximumSequences: 4,
    maximumContext: 96,
    tokenBudget: 16,
    ...options,
  });
  return engine;
}

const prompt = [7, 50, 21, 88, 13];

/** Waits until a condition holds; a test that waits in vain fails by its time limit. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

async function greedy(running: Engine, request: Partial<GenerateRequest> = {}) {
  const [answer] = await answersOf(running, { prompt, temperature: 0, maxTokens: 12, ...request });
  return answer!;
}

describe("ends of answers", () => {
  test("maxTokens, stop tokens, end tokens, ignoreEos and minTokens", async () => {
    const all = await greedy(await start());
    expect(all.tokens).toHaveLength(12);
    expect(all.finishReason).toBe("length");
    const third = all.tokens[2]!;
    const first = all.tokens.indexOf(third);
    const stopped = await greedy(engine!, { stopTokens: [third] });
    expect(stopped).toMatchObject({ finishReason: "stop", stopReason: third });
    expect(stopped.tokens).toEqual(all.tokens.slice(0, first + 1));
    expect(stopped.text).toBe(all.text.slice(0, first));
    const included = await greedy(engine!, { stopTokens: [third], includeStop: true });
    expect(included.text).toBe(all.text.slice(0, first + 1));
    // Before so many tokens the stop token is not even sampled.
    const later = await greedy(engine!, { stopTokens: [third], minTokens: 8 });
    expect(later.tokens.slice(0, 8)).not.toContain(third);
    expect(later.tokens.length).toBeGreaterThanOrEqual(8);
    await engine!.dispose();

    await start({ endTokens: [third] });
    const ended = await greedy(engine!);
    expect(ended).toMatchObject({ finishReason: "stop", stopReason: undefined });
    expect(ended.tokens).toEqual(all.tokens.slice(0, first + 1));
    expect((await greedy(engine!, { ignoreEos: true })).tokens).toEqual(all.tokens);
  });

  test("stop texts that lie over the borders of tokens are never let through", async () => {
    const all = await greedy(await start());
    const stop = all.text.slice(3, 6);
    const before = all.text.indexOf(stop);
    const pieces = await piecesOf(
      engine!.generate({ prompt, temperature: 0, maxTokens: 12, stop: ["no such text", stop] }),
    );
    expect(pieces.map(({ text }) => text).join("")).toBe(all.text.slice(0, before));
    expect(pieces.at(-1)).toMatchObject({ finishReason: "stop", stopReason: stop });
    const kept = await greedy(engine!, { stop: [stop], includeStop: true });
    expect(kept.text).toBe(all.text.slice(0, before + stop.length));
    // A beginning of a stop text that does not go on is let through after all.
    const almost = await greedy(engine!, { stop: [`${all.text.slice(-2)}#`] });
    expect(almost.text).toBe(all.text);
  });

  test("maxTokens is what is left of the context by default", async () => {
    await start({ maximumContext: 20 });
    const [answer] = await answersOf(engine!, { prompt, temperature: 0 });
    expect(answer!.tokens).toHaveLength(15);
    expect(answer!.finishReason).toBe("length");
  });
});

describe("sampling", () => {
  const request = { prompt, temperature: 1.2, maxTokens: 10, seed: 42, n: 3 } as const;

  test("the same seed gives the same answers, whatever else is in the batch; answers differ", async () => {
    const running = await start();
    const single = await answersOf(running, request);
    expect(new Set(single.map(({ text }) => text)).size).toBe(3);
    const [crowded] = await Promise.all([
      answersOf(running, request),
      ...[1, 2, 3].map((seed) => answersOf(running, { ...request, prompt: [seed, 9], n: 1, seed })),
    ]);
    expect(crowded).toEqual(single);
    expect(await answersOf(running, { ...request, seed: 43 })).not.toEqual(single);
  });

  test("the engine's seed decides those of requests without one", async () => {
    const { seed: _, ...seedless } = request;
    const runs: string[] = [];
    for (const seed of [5, 5, 6]) {
      await start({ seed });
      runs.push(JSON.stringify(await answersOf(engine!, seedless)));
      await engine!.dispose();
    }
    expect(runs[0]).toBe(runs[1]);
    expect(runs[0]).not.toBe(runs[2]);
  });

  test("biases and penalties reach the logits", async () => {
    const running = await start();
    const plain = await greedy(running);
    const banned = plain.tokens[0]!;
    const without = await greedy(running, { logitBias: new Map([[banned, Number(-1e9)]]) });
    expect(without.tokens).not.toContain(banned);
    const forced = await greedy(running, { logitBias: new Map([[77, 1e9]]) });
    expect(new Set(forced.tokens)).toEqual(new Set([77]));
    const fresh = await greedy(running, { presencePenalty: 2, frequencyPenalty: 2, repetitionPenalty: 1e9 });
    expect(new Set([...prompt, ...fresh.tokens]).size).toBe(prompt.length + fresh.tokens.length);
  });
});

/** Allows the tokens of a sequence one after the other, then the end token. */
function onlyTokens(tokens: readonly number[], end: number): { start(): TokenConstraint } {
  return {
    start: () => {
      let next = 0;
      return {
        fillMask: (mask) => {
          const allowed = tokens[next] ?? end;
          mask.fill(0);
          mask[allowed >>> 5] = 1 << (allowed & 31);
        },
        accept: (token) => {
          if (token !== tokens[next]) throw new Error("a token that was not allowed");
          next++;
        },
      };
    },
  };
}

describe("grammars", () => {
  test("each answer follows its own constraint, beside requests without one", async () => {
    const running = await start({ endTokens: [2] });
    const path = [40, 41, 95, 32, 33];
    const free = await greedy(running, { ignoreEos: true });
    const [constrained, beside] = await Promise.all([
      answersOf(running, { prompt, grammar: onlyTokens(path, 2), n: 3, maxTokens: 20, ignoreEos: true }),
      greedy(running, { ignoreEos: true }),
    ]);
    for (const answer of constrained) {
      expect(answer.tokens).toEqual([...path, 2]);
      expect(answer.finishReason).toBe("stop");
      expect(answer.text).toBe(path.map((id) => String.fromCodePoint(id + 32)).join(""));
    }
    expect(beside).toEqual(free);
  });

  test("one that fails ends its own request only", async () => {
    const running = await start();
    const free = await greedy(running);
    const broken = {
      start: () => ({
        fillMask: () => {
          throw new Error("secret");
        },
        accept: () => {},
      }),
    };
    const [failed, beside] = await Promise.all([greedy(running, { grammar: broken }), greedy(running)]);
    expect(failed).toMatchObject({ finishReason: "error", tokens: [] });
    expect(failed.error).not.toContain("secret");
    expect(beside).toEqual(free);
    expect(running.health.state).toBe("ready");
  });
});

describe("requests that are not wanted any more", () => {
  const endless = { prompt, temperature: 0, maxTokens: 80, ignoreEos: true, n: 2 } as const;

  test("a consumer that stops frees the blocks", async () => {
    const running = await start();
    let pieces = 0;
    for await (const _ of running.generate(endless)) if (++pieces === 5) break;
    const after = countSteps(running);
    await until(() => running.statistics.cacheUsage === 0);
    expect(after.steps).toBeLessThanOrEqual(1);
    expect(running.statistics).toMatchObject({ running: 0, waiting: 0 });
  });

  test("a signal ends waiting and running requests with a piece that says so", async () => {
    vi.stubEnv("SLIPSTREAM_SERVE_STEP_DELAY", "2");
    const running = await start();
    const controller = new AbortController();
    const all = Promise.all(
      Array.from({ length: 6 }, () => answersOf(running, { ...endless, signal: controller.signal })),
    );
    await until(() => running.statistics.running > 1 && running.statistics.waiting > 0);
    controller.abort();
    for (const answers of await all) {
      expect(answers.map(({ finishReason }) => finishReason)).toEqual(["abort", "abort"]);
    }
    await until(() => running.statistics.cacheUsage === 0);
    expect(running.statistics).toMatchObject({ running: 0, waiting: 0 });
    const late = await answersOf(running, { ...endless, signal: controller.signal });
    expect(late.map(({ finishReason }) => finishReason)).toEqual(["abort", "abort"]);
  });

  test("a storm of clients that leave brings every gauge back to zero", async () => {
    const running = await start({ maximumSequences: 8, blocks: 20, blockSize: 8 });
    let reports = 0;
    running.observe({
      finished: () => {
        reports++;
      },
    });
    const client = async (index: number): Promise<void> => {
      const request = { ...endless, prompt: [index % 90, 5, index % 7], maxTokens: 30, n: 1 + (index % 2) };
      let left = index % 9;
      for await (const _ of running.generate(request)) if (left-- === 0) break;
    };
    await Promise.all(Array.from({ length: 200 }, (_, index) => client(index)));
    await until(() => running.statistics.cacheUsage === 0);
    expect(running.statistics).toMatchObject({ running: 0, waiting: 0 });
    expect(reports).toBe(200);
    expect(await greedy(running)).toMatchObject({ finishReason: "length" });
  });

  test("a grammar that cannot start leaves nothing behind", async () => {
    const running = await start();
    const grammar = {
      start: () => {
        throw new Error("no beginning");
      },
    };
    expect(() => running.generate({ prompt, grammar })).toThrow("no beginning");
    expect(running.statistics).toMatchObject({ running: 0, waiting: 0 });
    expect(await greedy(running)).toMatchObject({ finishReason: "length" });
  });

  test("a consumer that never reads holds nobody up, and gets everything in one piece", async () => {
    const running = await start();
    const slow = running.generate({ prompt, temperature: 0, maxTokens: 12 });
    const expected = await greedy(running);
    await greedy(running);
    const pieces = await piecesOf(slow);
    expect(pieces).toHaveLength(1);
    expect(pieces[0]).toMatchObject({ tokens: expected.tokens, text: expected.text, finishReason: "length" });
  });
});

function countSteps(running: Engine): { steps: number } {
  const counter = { steps: 0 };
  running.observe({
    step: () => {
      counter.steps++;
    },
  });
  return counter;
}

describe("faults", () => {
  test("a forward pass that throws ends its requests; the engine goes on", async () => {
    vi.stubEnv("SLIPSTREAM_SERVE_FAIL_STEP", "4");
    const running = await start({ tokenBudget: 16, maximumSequences: 1 });
    const faults: unknown[] = [];
    running.observe({ failed: (error) => faults.push(error) });
    const [first, second] = await Promise.all([greedy(running), greedy(running, { maxTokens: 2 })]);
    expect(first).toMatchObject({
      finishReason: "error",
      error: "the model failed while it worked on this request",
    });
    expect(first.tokens).toHaveLength(3);
    expect(second).toMatchObject({ finishReason: "length" });
    expect(second.tokens).toEqual(first.tokens.slice(0, 2));
    expect(running.health.state).toBe("ready");
    expect(running.statistics).toMatchObject({ running: 0, waiting: 0, cacheUsage: 0 });
    expect(faults.map(String)).toEqual([expect.stringContaining("step 4 fails")]);
  });

  test("three in a row: the engine is dead, says why, and fails everything at once", async () => {
    vi.stubEnv("SLIPSTREAM_SERVE_FAIL_STEP", "1");
    const running = await start({ maximumSequences: 1 });
    const answers = await Promise.all(Array.from({ length: 6 }, () => greedy(running)));
    for (const answer of answers) expect(answer).toMatchObject({ finishReason: "error", tokens: [] });
    expect(running.health).toEqual({ state: "dead", reason: "3 steps in a row failed" });
    expect(() => running.generate({ prompt })).toThrow(/takes no requests[\s\S]*3 steps in a row failed/);
    await expect(running.embed([[1]])).rejects.toMatchObject({ requestCode: "not_ready" });
  });

  test("logits that are not numbers end the answer with an error", async () => {
    const broken = await loadModel(goldenFolder("llama"));
    for (const data of broken.parts.weights.values()) data.fill(Number.NaN);
    const running = await createEngine(broken, { maximumContext: 32, maximumSequences: 2 });
    expect(await greedy(running)).toMatchObject({ finishReason: "error", tokens: [] });
    expect(running.health.state).toBe("ready");
    await running.dispose();
  });
});

describe("lifecycle", () => {
  test("draining finishes what runs and refuses what comes", async () => {
    const running = await start();
    const answer = greedy(running);
    const drained = running.drain({ timeoutSeconds: 60 });
    expect(running.health.state).toBe("draining");
    expect(() => running.generate({ prompt })).toThrow(expect.objectContaining({ requestCode: "not_ready" }));
    await drained;
    expect(await answer).toMatchObject({ finishReason: "length" });
  });

  test("draining cuts what is not done in time, and so does disposing", async () => {
    vi.stubEnv("SLIPSTREAM_SERVE_STEP_DELAY", "20");
    const running = await start();
    const cut = greedy(running, { maxTokens: 80 });
    await running.drain({ timeoutSeconds: 0.05 });
    expect(await cut).toMatchObject({ finishReason: "abort" });
    await running.dispose();
    await start();
    const disposed = greedy(engine!, { maxTokens: 80 });
    await engine!.dispose();
    expect(await disposed).toMatchObject({ finishReason: "abort" });
  });
});

describe("observers", () => {
  test("steps and requests are counted", async () => {
    const running = await start({ blockSize: 4 });
    const steps: StepReport[] = [];
    const finished: RequestReport[] = [];
    const gaps: number[] = [];
    const firsts: number[] = [];
    const observer: EngineObserver = {
      step: (report) => steps.push(report),
      finished: (report) => finished.push(report),
      interToken: (seconds) => gaps.push(seconds),
      firstToken: (seconds) => firsts.push(seconds),
    };
    running.observe({
      step: () => {
        throw new Error("an observer's own fault");
      },
    });
    running.observe(observer);
    const long = Array.from({ length: 40 }, (_, index) => index + 3);
    await greedy(running, { prompt: long, id: "mine" });
    const again = running.generate({ prompt: long, temperature: 0, maxTokens: 1 });
    await piecesOf(again);
    // 40 tokens of the prompt in steps of 16, 12 answer tokens of which the last is not run; then what was not cached.
    expect(steps.map(({ tokens }) => tokens)).toEqual([16, 16, 8, ...new Array(11).fill(1), 1]);
    expect(steps.map(({ promptTokens }) => promptTokens)).toEqual([16, 16, 8, ...new Array(11).fill(0), 1]);
    expect(again.cachedTokens).toBe(39);
    expect(finished).toMatchObject([
      {
        id: "mine",
        promptTokens: 40,
        cachedTokens: 0,
        answerTokens: 12,
        answers: 1,
        finishReasons: ["length"],
      },
      { promptTokens: 40, cachedTokens: 39, answerTokens: 1 },
    ]);
    expect(gaps).toHaveLength(11);
    expect(firsts).toHaveLength(2);
  });

  test("the trace shows where each request's time went", async () => {
    const trace = new Trace();
    const running = await start({ trace });
    await Promise.all([greedy(running, { id: "one" }), greedy(running, { id: "two" })]);
    const events = trace.toJSON().traceEvents as {
      name: string;
      tid: number;
      ts: number;
      dur: number;
      args: { id?: string };
    }[];
    const lanes = ["one", "two"].map((id) => {
      const spans = events.filter(({ args }) => args.id === id);
      expect(spans.map(({ name }) => name)).toEqual(["queued", "prompt", "decode"]);
      for (const [index, span] of spans.entries()) {
        expect(span.dur).toBeGreaterThanOrEqual(0);
        const next = spans[index + 1];
        if (next !== undefined) expect(span.ts + span.dur).toBeCloseTo(next.ts, 3);
      }
      return spans[0]!.tid;
    });
    expect(lanes[0]).not.toBe(lanes[1]);
    const names = new Set(events.map(({ name }) => name));
    for (const name of ["schedule", "fill", "program", "update", "deliver"]) expect(names).toContain(name);
  });
});

test("embeddings are the mean of the final hidden states, of length 1", async () => {
  const running = await start({ tokenBudget: 16 });
  const inputs = [
    [5],
    prompt,
    Array.from({ length: 30 }, (_, index) => index * 3 + 1),
    [9, 9],
    [4, 8, 15, 16, 23],
  ];
  const found = await running.embed(inputs);
  const reference = await loadModel(goldenFolder("llama"), { backend: "reference" });
  const other = await createEngine(reference, { maximumContext: 40, tokenBudget: 8, maximumSequences: 2 });
  const expected = await other.embed(inputs);
  for (const [index, vector] of found.entries()) {
    expect(Math.hypot(...vector)).toBeCloseTo(1, 5);
    for (const [column, value] of vector.entries()) expect(value).toBeCloseTo(expected[index]![column]!, 4);
  }
  // The logits of one token are its hidden state times the output projection: that of length 1 is parallel to it.
  const weight = model.parts.weights.get("lm_head.weight")!;
  const logits = await (await model.forward([[5]])).data();
  const size = found[0]!.length;
  const projected = Array.from(logits, (_, row) =>
    found[0]!.reduce((sum, value, column) => sum + value * (weight[row * size + column] as number), 0),
  );
  const scale = logits[0]! / projected[0]!;
  for (const [row, value] of projected.entries()) expect(value * scale).toBeCloseTo(logits[row]!, 3);
  await expect(running.embed([[1], []])).rejects.toMatchObject({ requestCode: "invalid_request" });
  await other.dispose();
});

describe("what cannot run is refused before anything does", () => {
  const wrong: readonly (readonly [Partial<GenerateRequest>, string, RegExp])[] = [
    [{ prompt: [] }, "prompt", /at least one token/],
    [{ prompt: [1, 101] }, "prompt", /from 0 to 100[\s\S]*101/],
    [{ prompt: [1.5] }, "prompt", /1\.5/],
    [{ temperature: -1 }, "temperature", /a number from 0/],
    [{ temperature: Number.NaN }, "temperature", /NaN/],
    [{ topP: 0 }, "topP", /above 0/],
    [{ topP: -1 }, "topP", /from 0 to 1/],
    [{ topK: -1 }, "topK", /an integer/],
    [{ minP: 2 }, "minP", /from 0 to 1/],
    [{ repetitionPenalty: 0 }, "repetitionPenalty", /above 0/],
    [{ presencePenalty: 3 }, "presencePenalty", /from -2 to 2/],
    [{ frequencyPenalty: -3 }, "frequencyPenalty", /from -2 to 2/],
    [{ n: 5_000_000 }, "n", /from 1 to 4/],
    [{ n: 0 }, "n", /from 1 to 4/],
    [{ maxTokens: 0 }, "maxTokens", /from 1/],
    [{ minTokens: 13, maxTokens: 12 }, "minTokens", /from 0 to 12/],
    [{ logprobs: 1e9 }, "logprobs", /from 0 to 20/],
    [{ prompt: undefined as unknown as string }, "prompt", /a text or an array[\s\S]*undefined/],
    [{ stop: "end" as unknown as string[] }, "stop", /an array of texts/],
    [{ logitBias: { 5: 1 } as unknown as Map<number, number> }, "logitBias", /a Map/],
    [{ stop: [""] }, "stop", /texts of 1 to/],
    [{ stop: new Array(1000).fill("a") }, "stop", /at most 64/],
    [{ stopTokens: [-1] }, "stopTokens", /from 0 to 100/],
    [{ logitBias: new Map([[101, 1]]) }, "logitBias", /from 0 to 100/],
    [{ logitBias: new Map([[1, Number.NaN]]) }, "logitBias", /NaN/],
    [{ seed: 0.5 }, "seed", /an integer/],
  ];
  test.each(wrong)("%o", async (request, parameter, message) => {
    const running = await start();
    let caught: unknown;
    try {
      running.generate({ prompt, ...request });
    } catch (error) {
      caught = error;
    }
    expect(caught).toMatchObject({ requestCode: "invalid_request", parameter });
    expect(String(caught)).toMatch(message);
    expect(running.statistics).toMatchObject({ running: 0, waiting: 0 });
  });

  test("a prompt or an answer that the context cannot hold", async () => {
    const running = await start({ maximumContext: 20 });
    const refused = (request: GenerateRequest) => {
      try {
        running.generate(request);
      } catch (error) {
        return error;
      }
      throw new Error("it was admitted");
    };
    const long = new Array(20).fill(5);
    expect(refused({ prompt: long })).toMatchObject({
      requestCode: "context_length_exceeded",
      parameter: "prompt",
      message: expect.stringMatching(/at most 20 tokens[\s\S]*20 of the prompt/),
    });
    expect(refused({ prompt, maxTokens: 16 })).toMatchObject({
      requestCode: "context_length_exceeded",
      parameter: "maxTokens",
    });
  });

  test("a full queue", async () => {
    vi.stubEnv("SLIPSTREAM_SERVE_STEP_DELAY", "5");
    const running = await start({ maximumWaiting: 2, maximumSequences: 1 });
    const answers = [greedy(running)];
    await until(() => running.statistics.running === 1);
    answers.push(greedy(running), greedy(running));
    expect(() => running.generate({ prompt })).toThrow(
      expect.objectContaining({ requestCode: "queue_full" }),
    );
    expect((await Promise.all(answers)).map(({ finishReason }) => finishReason)).toEqual([
      "length",
      "length",
      "length",
    ]);
  });

  const settings: readonly (readonly [EngineSettings, RegExp])[] = [
    [{ tokenBudget: 0 }, /tokenBudget[\s\S]*from 1/],
    [{ tokenBudget: 4, maximumSequences: 8 }, /at least maximumSequences, 8/],
    [{ maximumContext: 4096 }, /maximumContext[\s\S]*from 1 to 128/],
    [{ cacheBytes: 100 }, /cacheBytes/],
    [{ blocks: 2, blockSize: 16, maximumContext: 64 }, /at most 32 tokens \(2 blocks of 16\)/],
  ];
  test.each(settings)("settings %o", async (wrongSettings, message) => {
    await expect(createEngine(model, wrongSettings)).rejects.toThrow(message);
  });

  test("a tokenizer that is not the model's", async () => {
    await expect(createEngine(model, { tokenizer: letterTokenizer(500) })).rejects.toThrow(/vocabulary/);
  });
});

test("a piece is what one step gave one answer", async () => {
  const running = await start();
  const pieces: Piece[] = await piecesOf(
    running.generate({ prompt: String.fromCodePoint(60, 61), temperature: 0, maxTokens: 3, logprobs: 1 }),
  );
  expect(pieces.map(({ tokens }) => tokens.length)).toEqual([1, 1, 1]);
  for (const { tokens, text, logprobs } of pieces) {
    expect(text).toBe(String.fromCodePoint(tokens[0]! + 32));
    expect(logprobs).toMatchObject([{ token: tokens[0], text, bytes: [...Buffer.from(text)] }]);
    expect(logprobs![0]!.top).toHaveLength(1);
  }
  const config = JSON.parse(readFileSync(join(goldenFolder("llama"), "config.json"), "utf8")) as {
    vocab_size: number;
  };
  expect(running.vocabularySize).toBe(config.vocab_size);
  expect(running.tokenize("Hi")).toEqual([40, 73]);
  expect(running.detokenize([40, 73])).toBe("Hi");
});
