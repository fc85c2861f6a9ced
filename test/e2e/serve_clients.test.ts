/** The clients that people use, against `slipstream serve` on a model with random weights: nothing is retried. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, jsonSchema, Output, streamText, tool } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Running, Workplace } from "./support.ts";

const place = new Workplace();
let server: Running;
let url = "";

beforeAll(async () => {
  const config = place.config({ max_steps: 1, output_dir: "out", model: { max_position_embeddings: 1024 } });
  await place.train([config]);
  const parameters = ["--port", "0", "--chat-template", "chatml", "--served-model-name", "tiny"];
  server = place.start(["serve", "out/model", ...parameters, "--api-key", "sk-test", "--log-level", "error"]);
  let output = "";
  server.child.stdout!.on("data", (piece) => {
    output += piece;
  });
  await server.seen(/serving tiny at \S+\n/);
  url = /http:\S+/.exec(output)![0];
});

afterAll(async () => {
  server.child.kill("SIGTERM");
  expect(await server.done).toMatchObject({ status: 0, errors: "" });
  place[Symbol.dispose]();
});

/** The gauges of running and waiting requests. */
async function load(): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const values = [...text.matchAll(/^vllm:(?:num_requests_\w+|kv_cache_usage_perc)\{.*\} (\S+)$/gm)];
  expect(values).toHaveLength(3);
  return values.reduce((sum, [, value]) => sum + Number(value), 0);
}

async function untilIdle(): Promise<void> {
  const end = performance.now() + 20_000;
  while ((await load()) > 0) {
    if (performance.now() > end) throw new Error("requests are left over");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const messages = [{ role: "user" as const, content: "Tell me of whales." }];
const person = {
  type: "object" as const,
  properties: {
    name: { type: "string" as const, maxLength: 8 },
    age: { type: "integer" as const, minimum: 0, maximum: 99 },
  },
  required: ["name", "age"],
  additionalProperties: false as const,
};
const cityParameters = {
  type: "object" as const,
  properties: { city: { type: "string" as const, maxLength: 12 } },
  required: ["city"],
  additionalProperties: false as const,
};

describe("openai", () => {
  const client = () => new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-test", maxRetries: 0 });

  test("models", async () => {
    const ids: string[] = [];
    for await (const model of client().models.list()) ids.push(model.id);
    expect(ids).toEqual(["tiny"]);
    expect((await client().models.retrieve("tiny")).object).toBe("model");
  });

  test("chat, whole and streamed, says the same", async () => {
    const request = {
      model: "tiny",
      messages,
      max_completion_tokens: 20,
      temperature: 0,
      logprobs: true,
      top_logprobs: 3,
    };
    const whole = await client().chat.completions.create(request);
    const choice = whole.choices[0]!;
    expect(choice.message.content!.length).toBeGreaterThan(5);
    expect(choice.finish_reason).toBe("length");
    expect(whole.usage!.completion_tokens).toBe(20);
    const tokens = choice.logprobs!.content!;
    expect(tokens).toHaveLength(20);
    // Greedy: each token is the likeliest.
    for (const token of tokens) expect(token.top_logprobs[0]!.token).toBe(token.token);

    const stream = await client().chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe(choice.message.content);
    expect(usage!.completion_tokens).toBe(20);
  });

  test("completions of several prompts, with the same seed twice", async () => {
    const request = {
      model: "tiny",
      prompt: ["The whale", "The otter"],
      n: 2,
      max_tokens: 8,
      seed: 5,
      temperature: 1,
    };
    const [first, second] = await Promise.all([
      client().completions.create(request),
      client().completions.create(request),
    ]);
    const texts = first.choices.map((choice) => choice.text);
    expect(texts).toHaveLength(4);
    expect(second.choices.map((choice) => choice.text)).toEqual(texts);
    expect(texts[0]).not.toBe(texts[1]);
  });

  test("a tool that must be called, whole and streamed", async () => {
    const request = {
      model: "tiny",
      messages,
      max_completion_tokens: 300,
      tools: [{ type: "function" as const, function: { name: "get_weather", parameters: cityParameters } }],
      tool_choice: "required" as const,
      parallel_tool_calls: false,
      seed: 1,
    };
    const whole = await client().chat.completions.create(request);
    expect(whole.choices[0]!.finish_reason).toBe("tool_calls");
    const [call] = whole.choices[0]!.message.tool_calls!;
    if (call?.type !== "function") throw new Error("no call");
    expect(call.function.name).toBe("get_weather");
    expect(JSON.parse(call.function.arguments)).toEqual({ city: expect.any(String) });

    const runner = client().chat.completions.stream(request);
    const final = await runner.finalChatCompletion();
    const [streamed] = final.choices[0]!.message.tool_calls!;
    if (streamed?.type !== "function") throw new Error("no call");
    expect(streamed.function.arguments).toBe(call.function.arguments);
  });

  test("an answer that fits a schema", async () => {
    const completion = await client().chat.completions.create({
      model: "tiny",
      messages,
      max_completion_tokens: 300,
      response_format: { type: "json_schema", json_schema: { name: "person", schema: person, strict: true } },
    });
    const value = JSON.parse(completion.choices[0]!.message.content!);
    expect(value).toEqual({ name: expect.any(String), age: expect.any(Number) });
    expect(value.age).toBeLessThanOrEqual(99);
  });

  test("embeddings, as the client asks for them by itself and as floats", async () => {
    const input = ["The whale swims.", "The otter looks."];
    const packed = await client().embeddings.create({ model: "tiny", input });
    const floats = await client().embeddings.create({ model: "tiny", input, encoding_format: "float" });
    expect(packed.data).toHaveLength(2);
    for (const [index, { embedding }] of packed.data.entries()) {
      expect(Array.from(embedding)).toEqual(floats.data[index]!.embedding);
      expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
    }
  });

  test("errors are the client's own classes", async () => {
    const locked = new OpenAI({ baseURL: `${url}/v1`, apiKey: "wrong", maxRetries: 0 });
    await expect(locked.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const ask = (changes: object) =>
      client().chat.completions.create({ model: "tiny", messages, ...changes });
    await expect(ask({ model: "gpt-4" })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(ask({ top_p: -1 })).rejects.toMatchObject({
      status: 400,
      param: "top_p",
      type: "invalid_request_error",
    });
    await expect(ask({ max_tokens: 1e6 })).rejects.toMatchObject({ code: "context_length_exceeded" });
  });

  test("leaving a stream frees what it held", async () => {
    const stream = await client().chat.completions.create({
      model: "tiny",
      messages,
      stream: true,
      logit_bias: {},
    });
    for await (const _ of stream) break;
    await untilIdle();
  });

  test("two hundred clients that leave at once leave nothing behind", async () => {
    const controllers = Array.from({ length: 200 }, () => new AbortController());
    const body = JSON.stringify({ prompt: "The whale", max_tokens: 900, ignore_eos: true, stream: true });
    const headers = { "content-type": "application/json", authorization: "Bearer sk-test" };
    const asked = controllers.map(({ signal }) =>
      fetch(`${url}/v1/completions`, { method: "POST", headers, body, signal }).catch(() => undefined),
    );
    const first = await asked[0];
    await first!.body!.getReader().read();
    expect(await load()).toBeGreaterThan(1);
    for (const controller of controllers) controller.abort();
    await Promise.all(asked);
    await untilIdle();
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });
});

describe("ai", () => {
  const provider = () =>
    createOpenAICompatible({
      name: "slipstream",
      baseURL: `${url}/v1`,
      apiKey: "sk-test",
      includeUsage: true,
      supportsStructuredOutputs: true,
    });
  const base = () => ({
    model: provider()("tiny"),
    maxRetries: 0,
    maxOutputTokens: 20,
    prompt: "Tell me of whales.",
  });

  test("text, whole and streamed", async () => {
    const whole = await generateText({ ...base(), temperature: 0 });
    expect(whole.text.length).toBeGreaterThan(5);
    expect(whole.finishReason).toBe("length");
    expect(whole.usage.outputTokens).toBe(20);
    const streamed = streamText({ ...base(), temperature: 0 });
    let text = "";
    for await (const piece of streamed.textStream) text += piece;
    expect(text).toBe(whole.text);
    expect((await streamed.usage).outputTokens).toBe(20);
  });

  test("a tool is called with arguments that fit", async () => {
    const seen: unknown[] = [];
    const result = await generateText({
      ...base(),
      maxOutputTokens: 300,
      tools: {
        get_weather: tool({
          description: "The weather of a city",
          inputSchema: jsonSchema<{ city: string }>(cityParameters),
          execute: async (input) => {
            seen.push(input);
            return "4 degrees";
          },
        }),
      },
      toolChoice: "required",
      // One call: with random weights it may go on calling until its tokens are used up.
      providerOptions: { slipstream: { parallel_tool_calls: false } },
    });
    expect(result.finishReason).toBe("tool-calls");
    expect(seen[0]).toEqual({ city: expect.any(String) });
  });

  test("an object that fits its schema", async () => {
    const result = await generateText({
      ...base(),
      maxOutputTokens: 300,
      output: Output.object({ schema: jsonSchema<{ name: string; age: number }>(person) }),
    });
    expect(result.output).toEqual({ name: expect.any(String), age: expect.any(Number) });
  });

  test("an embedding", async () => {
    const { embedding } = await embed({
      model: provider().embeddingModel("tiny"),
      value: "The whale swims.",
      maxRetries: 0,
    });
    expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
  });

  test("an abort ends the request", async () => {
    const gone = new AbortController();
    const { textStream } = streamText({
      ...base(),
      maxOutputTokens: 900,
      abortSignal: gone.signal,
      onError: () => {},
    });
    for await (const _ of textStream) gone.abort();
    await untilIdle();
  });
});
