import { expect, test } from "vitest";
import { readEvents, startServer } from "../../../test/support/http_server.ts";

interface Chunk {
  readonly id: string;
  readonly choices: { index: number; text: string; finish_reason: string | null; logprobs: unknown }[];
  readonly usage?: unknown;
}

test("a completion has OpenAI's shape", async () => {
  const { post, engine } = await startServer({ answer: () => " is a dog" });
  const response = await post("/v1/completions", { model: "fake", prompt: "Rex", max_tokens: 40 });
  expect(response.status).toBe(200);
  const body = await response.json();
  expect(body).toEqual({
    id: expect.stringMatching(/^cmpl-/),
    object: "text_completion",
    created: expect.any(Number),
    model: "fake",
    choices: [{ index: 0, text: " is a dog", logprobs: null, finish_reason: "stop", stop_reason: null }],
    // "Rex" and the token that begins a text; nine letters and the token that ends it.
    usage: {
      prompt_tokens: 4,
      completion_tokens: 10,
      total_tokens: 14,
      prompt_tokens_details: { cached_tokens: 2 },
    },
  });
  expect(Math.abs(body.created - Date.now() / 1000)).toBeLessThan(60);
  expect(engine.requests[0]!.prompt).toEqual([256, 82, 101, 120]);
});

test("16 tokens by default, as with OpenAI, and the length is told as the reason", async () => {
  const { post } = await startServer({ answer: () => "x".repeat(50) });
  const { choices } = await (await post("/v1/completions", { prompt: "a" })).json();
  expect(choices[0]!.text).toBe("x".repeat(16));
  expect(choices[0]!.finish_reason).toBe("length");
});

test("every sampling parameter reaches the engine", async () => {
  const { post, engine } = await startServer();
  const response = await post("/v1/completions", {
    prompt: "a",
    max_tokens: 7,
    n: 2,
    best_of: 2,
    temperature: 0.5,
    top_p: 0.9,
    top_k: 12,
    min_p: 0.05,
    repetition_penalty: 1.1,
    presence_penalty: -0.5,
    frequency_penalty: 0.25,
    logit_bias: { "65": -100, "7": 2.5 },
    seed: -3,
    stop: "END",
    stop_token_ids: [10],
    include_stop_str_in_output: true,
    min_tokens: 2,
    ignore_eos: true,
    skip_special_tokens: false,
    priority: -1,
    cache_salt: "salt",
    user: "ann",
    logprobs: 3,
  });
  expect(response.status).toBe(200);
  const { signal, id, ...request } = engine.requests[0]!;
  expect(signal).toBeInstanceOf(AbortSignal);
  expect(id).toMatch(/^cmpl-/);
  expect(request).toEqual({
    prompt: [256, 97],
    maxTokens: 7,
    n: 2,
    temperature: 0.5,
    topP: 0.9,
    topK: 12,
    minP: 0.05,
    repetitionPenalty: 1.1,
    presencePenalty: -0.5,
    frequencyPenalty: 0.25,
    logitBias: new Map([
      [7, 2.5],
      [65, -100],
    ]),
    seed: -3,
    stop: ["END"],
    stopTokens: [10],
    includeStop: true,
    minTokens: 2,
    ignoreEos: true,
    skipSpecialTokens: false,
    priority: -1,
    cacheSalt: "salt",
    tenant: "ann",
    logprobs: 3,
  });
});

test("null means that a field is not there, and unknown fields are ignored", async () => {
  const { post, engine } = await startServer();
  const body = { prompt: "a", temperature: null, stop: null, logit_bias: null, suffix: null, unheard_of: 1 };
  expect((await post("/v1/completions", body)).status).toBe(200);
  expect(engine.requests[0]).toMatchObject({ temperature: 1, stop: [], n: 1 });
});

test("prompts as tokens, several of them, and several answers each", async () => {
  const { post, engine } = await startServer({
    answer: (request, index) => `${request.prompt.length}:${index}`,
  });
  const one = await (await post("/v1/completions", { prompt: [72, 105] })).json();
  expect(one.choices.map((choice: { text: string }) => choice.text)).toEqual(["2:0"]);
  expect(engine.requests[0]!.prompt).toEqual([72, 105]);
  const tokens = await (await post("/v1/completions", { prompt: [[1, 2, 3], [4]], n: 2 })).json();
  const described = tokens.choices.map((choice: { index: number; text: string }) => [
    choice.index,
    choice.text,
  ]);
  expect(described).toEqual([
    [0, "3:0"],
    [1, "3:1"],
    [2, "1:0"],
    [3, "1:1"],
  ]);
  expect(tokens.usage).toMatchObject({ prompt_tokens: 4, completion_tokens: 16 });
  const texts = await (await post("/v1/completions", { prompt: ["a", "bcd"] })).json();
  expect(texts.choices.map((choice: { text: string }) => choice.text)).toEqual(["2:0", "4:0"]);
});

test("echo puts the prompt before each answer", async () => {
  const { post } = await startServer({ answer: () => "!" });
  const whole = await (await post("/v1/completions", { prompt: ["ab", "cd"], echo: true })).json();
  expect(whole.choices.map((choice: { text: string }) => choice.text)).toEqual(["ab!", "cd!"]);
  const response = await post("/v1/completions", { prompt: [72, 105], echo: true, stream: true });
  const chunks = (await readEvents(response)).slice(0, -1) as Chunk[];
  expect(chunks.map((chunk) => chunk.choices[0]!.text).join("")).toBe("Hi!");
});

test("legacy logprobs", async () => {
  const { post } = await startServer({ answer: () => "ab" });
  const { choices } = await (
    await post("/v1/completions", { prompt: "x", max_tokens: 2, logprobs: 2 })
  ).json();
  expect(choices[0]!.logprobs).toEqual({
    tokens: ["a", "b"],
    token_logprobs: [-0.25, -0.25],
    top_logprobs: [
      { a: -0.25, "\u0001": -2.5 },
      { b: -0.25, "\u0001": -2.5 },
    ],
    text_offset: [0, 1],
  });
  const none = await (await post("/v1/completions", { prompt: "x", max_tokens: 1, logprobs: 0 })).json();
  expect(none.choices[0]!.logprobs.top_logprobs).toBeNull();
  // What cannot happen has no number in JSON.
  const many = await (await post("/v1/completions", { prompt: "x", max_tokens: 1, logprobs: 3 })).json();
  expect(many.choices[0]!.logprobs.top_logprobs![0]!["\u0002"]).toBe(-9999);
});

test("a stream of whole characters that adds up to the answer, with usage at the end", async () => {
  const text = 'Größe — 😀 \u2028\n\r\ndata: x\n\n"quoted"';
  const { post } = await startServer({ answer: () => text });
  const response = await post("/v1/completions", {
    prompt: "x",
    max_tokens: 200,
    stream: true,
    stream_options: { include_usage: true },
  });
  expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
  const events = await readEvents(response);
  expect(events.at(-1)).toBe("[DONE]");
  const chunks = events.slice(0, -1) as Chunk[];
  const last = chunks.pop()!;
  expect(last.choices).toEqual([]);
  const length = Buffer.byteLength(text) + 1;
  expect(last.usage).toEqual({
    prompt_tokens: 2,
    completion_tokens: length,
    total_tokens: length + 2,
    prompt_tokens_details: { cached_tokens: 2 },
  });
  expect(chunks.map((chunk) => chunk.choices[0]!.text).join("")).toBe(text);
  for (const chunk of chunks) {
    expect(chunk.choices[0]!.text.isWellFormed()).toBe(true);
    expect(chunk.choices[0]!.text).not.toContain("\ufffd");
    expect(chunk.usage).toBeNull();
    expect(chunk.id).toBe(last.id);
  }
  expect(chunks.map((chunk) => chunk.choices[0]!.finish_reason).filter(Boolean)).toEqual(["stop"]);
});

test("a stream of several answers tells them apart", async () => {
  const { post } = await startServer({ answer: (_, index) => `answer ${index}` });
  const events = await readEvents(await post("/v1/completions", { prompt: ["a", "b"], n: 2, stream: true }));
  const texts = ["", "", "", ""];
  const ends: number[] = [];
  for (const chunk of events.slice(0, -1) as Chunk[]) {
    expect("usage" in chunk).toBe(false);
    const { index, text, finish_reason: end } = chunk.choices[0]!;
    texts[index] += text;
    if (end !== null) ends.push(index);
  }
  expect(texts).toEqual(["answer 0", "answer 1", "answer 0", "answer 1"]);
  expect(ends.sort()).toEqual([0, 1, 2, 3]);
});

test("offsets of legacy logprobs go on from chunk to chunk", async () => {
  const { post } = await startServer({ answer: () => "abc" });
  const response = await post("/v1/completions", { prompt: "x", max_tokens: 3, stream: true, logprobs: 0 });
  const chunks = (await readEvents(response)).slice(0, -1) as Chunk[];
  const offsets = chunks.map(
    (chunk) => (chunk.choices[0]!.logprobs as { text_offset: number[] }).text_offset,
  );
  expect(offsets).toEqual([[0], [1], [2]]);
});

test("a fault before the answer is a 500; one in a stream is an event, and the stream ends", async () => {
  const { post } = await startServer({ failAt: 3, answer: () => "abcdef" });
  const response = await post("/v1/completions", { prompt: "x" });
  expect(response.status).toBe(500);
  expect((await response.json()).error).toEqual({
    message: "the forward pass failed",
    type: "server_error",
    param: null,
    code: "engine_error",
  });
  const events = await readEvents(await post("/v1/completions", { prompt: ["x", "y"], stream: true }));
  expect(events.at(-1)).toEqual({
    error: { message: "the forward pass failed", type: "server_error", param: null, code: "engine_error" },
  });
  expect((events.slice(0, -1) as Chunk[]).filter((chunk) => chunk.choices[0]!.index === 0)).toHaveLength(3);
});

test("many prompts in one request are nothing to be warned about", async () => {
  const warnings: Error[] = [];
  const take = (warning: Error): number => warnings.push(warning);
  process.on("warning", take);
  const { post } = await startServer({ answer: () => "x" });
  const { choices } = await (await post("/v1/completions", { prompt: new Array(64).fill("a") })).json();
  await new Promise((resolve) => setImmediate(resolve));
  process.off("warning", take);
  expect(choices).toHaveLength(64);
  expect(warnings).toEqual([]);
});
