/** Lossless serving: greedy answers are those of `slipstream generate`, token for token, however they are computed. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Completion, eventually, type LiveServer, prompts, ServingPlace } from "./support.ts";

let place: ServingPlace;

/** A beginning of several blocks of the cache. */
const shared = "The otter looks at the whale again, 3 times.\n".repeat(4);
/** Sixteen requests; those of the second half begin alike. */
const asked = [...prompts.slice(0, 8), ...prompts.slice(8, 16).map((prompt) => shared + prompt)];
/** Those of them that are compared with the command. */
const commanded = [0, 5, 7, 8, 15];
const answerTokens = 48;

/** The tokens and text of an answer. */
interface Answer {
  readonly tokens: readonly string[];
  readonly text: string;
}

/** By number of `asked`, what `generate` says. */
const expected = new Map<number, Answer>();
/** What a server says to one request after the other. */
let alone: Answer[];

/** The texts of ids, out of the tokenizer's file. */
function textsOf(ids: readonly number[]): string[] {
  const { model } = JSON.parse(place.read(place.trained, "tokenizer.json")) as {
    model: { vocab: Record<string, number> };
  };
  const texts = new Map(Object.entries(model.vocab).map(([piece, id]) => [id, piece]));
  // Byte-level vocabularies write a space and a line's end as letters.
  return ids.map((id) => texts.get(id)!.replaceAll("Ġ", " ").replaceAll("Ċ", "\n"));
}

function request(prompt: string): object {
  return { prompt, max_tokens: answerTokens, temperature: 0, logprobs: 0, ignore_eos: true };
}

function answerOf({ choices: [choice], usage }: Completion): Answer {
  expect(choice!.finish_reason).toBe("length");
  expect(choice!.logprobs!.tokens).toHaveLength(usage.completion_tokens);
  return { tokens: choice!.logprobs!.tokens, text: choice!.text };
}

async function ask(server: LiveServer, prompt: string): Promise<Answer> {
  return answerOf(await server.answer("/v1/completions", request(prompt)));
}

/** Answers to one request after the other. */
async function askAlone(server: LiveServer): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (const prompt of asked) answers.push(await ask(server, prompt));
  return answers;
}

/** The same answers from a server to all requests at once, in whatever way it was started. */
async function expectSameAtOnce(server: LiveServer, expected = alone): Promise<void> {
  expect(await Promise.all(asked.map((prompt) => ask(server, prompt)))).toEqual(expected);
  await server.idle();
}

beforeAll(async () => {
  place = await ServingPlace.create();
  for (const index of commanded) {
    const { ids, text } = await place.generate(asked[index]!, answerTokens);
    expected.set(index, { tokens: textsOf(ids), text });
  }
});
afterAll(() => place.close());

test("one after the other, then sixteen at once, with and without the prefix cache's help", async () => {
  const server = await place.serve([], { environment: { SLIPSTREAM_SERVE_CHECK: "1" } });
  alone = await askAlone(server);
  for (const [index, answer] of expected) expect(alone[index], asked[index]).toEqual(answer);
  expect(new Set(alone.map(({ text }) => text)).size).toBeGreaterThan(8);
  const hits = await server.metric("vllm:prefix_cache_hits_total");
  expect(hits).toBeGreaterThan(0);
  await expectSameAtOnce(server);
  // Every prompt is known by now, but for the part of a block at its end.
  expect(await server.metric("vllm:prefix_cache_hits_total")).toBeGreaterThan(hits + 8 * 32);
  // A tenant of its own finds nothing, and gets the same.
  const salted = { ...request(asked[15]!), cache_salt: "mine" };
  const first = await server.answer("/v1/completions", salted);
  expect(first.usage.prompt_tokens_details.cached_tokens).toBe(0);
  expect(answerOf(first)).toEqual(alone[15]);
  const again = await server.answer("/v1/completions", salted);
  expect(again.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(32);
  expect(answerOf(again)).toEqual(alone[15]);
});

test("forced preemption, in a cache that is too small for all", async () => {
  const server = await place.serve(["--cache-memory", "128KiB", "--max-context", "200"], {
    environment: { SLIPSTREAM_SERVE_FORCE_PREEMPTION: "5", SLIPSTREAM_SERVE_CHECK: "1" },
  });
  await expectSameAtOnce(server);
  expect(await server.metric("vllm:num_preemptions_total")).toBeGreaterThan(10);
});

test("blocks of one token, tiny steps, no prefix cache", async () => {
  const server = await place.serve(
    ["--block-size", "1", "--token-budget", "17", "--max-sequences", "7", "--no-prefix-caching"],
    { environment: { SLIPSTREAM_SERVE_CHECK: "1" } },
  );
  await expectSameAtOnce(server);
  expect(await server.metric("vllm:prefix_cache_hits_total")).toBe(0);
});

test("answers that others leave in the middle of, and several answers to one prompt", async () => {
  const server = await place.serve(["--scheduler", "prefill-first", "--block-size", "64"], {
    environment: { SLIPSTREAM_SERVE_CHECK: "1", SLIPSTREAM_SERVE_FORCE_PREEMPTION: "7" },
  });
  const leaving = asked.map(async (prompt, index) => {
    const controller = new AbortController();
    const body = { ...request(`${prompt} `), stream: true, max_tokens: 300 };
    const response = await server.post("/v1/completions", body, { signal: controller.signal });
    const reader = response.body!.getReader();
    for (let read = 0; read <= index; read++) await reader.read();
    controller.abort();
  });
  const several = server.answer("/v1/completions", { ...request(asked[9]!), n: 4 });
  await expectSameAtOnce(server);
  await Promise.all(leaving);
  for (const choice of (await several).choices) {
    expect({ tokens: choice.logprobs!.tokens, text: choice.text }).toEqual(alone[9]);
  }
  const finished = (reason: string): Promise<number> =>
    server.metric("vllm:request_success_total", { finished_reason: reason });
  await eventually("every answer is counted once", async () => {
    const [left, whole] = await Promise.all([finished("abort"), finished("length")]);
    return left > 0 && left + whole === 2 * asked.length + 4;
  });
});

test.each([["int8"], ["int4"]])("weights quantized to %s: alone and at once", async (kind) => {
  const server = await place.serve(["--quant", kind], {
    environment: { SLIPSTREAM_SERVE_FORCE_PREEMPTION: "9", SLIPSTREAM_SERVE_CHECK: "1" },
  });
  const quantized = await askAlone(server);
  expect(new Set(quantized.map(({ text }) => text)).size).toBeGreaterThan(4);
  await expectSameAtOnce(server, quantized);
});

test("a quantized cache answers every request in full", async () => {
  const server = await place.serve(["--kv-cache-dtype", "int8"], {
    environment: { SLIPSTREAM_SERVE_CHECK: "1" },
  });
  const answers = await Promise.all(asked.map((prompt) => ask(server, prompt)));
  // The beginnings of answers are hardly moved by it.
  const same = answers.filter(({ tokens }, index) => tokens[0] === alone[index]!.tokens[0]);
  expect(same.length).toBeGreaterThan(asked.length / 2);
});
