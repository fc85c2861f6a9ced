/** The server behind the AI SDK, by its provider for OpenAI-compatible servers. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, embed, embedMany, generateText, isStepCount, Output, streamText, tool } from "ai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { type LiveServer, ServingPlace } from "./support.ts";

let place: ServingPlace;
let server: LiveServer;

beforeAll(async () => {
  place = await ServingPlace.create();
  server = await place.serve([], { environment: { SLIPSTREAM_SERVE_CHECK: "1" } });
});
afterAll(() => place.close());

function providerOf({ baseURL }: LiveServer) {
  return createOpenAICompatible({
    ...{ name: "slipstream", baseURL, apiKey: "none" },
    ...{ includeUsage: true, supportsStructuredOutputs: true },
  });
}

// The SDK warns of what the older API of completions lacks.
globalThis.AI_SDK_LOG_WARNINGS = false;

/** What every call here shares. */
const common = { maxRetries: 0, seed: 3 };
const prompt = "The mole hears the otter";

const sighting = z.object({
  animal: z.enum(["whale", "otter", "heron"]),
  count: z.int().min(0).max(20),
  note: z.string().max(8),
});

/** The greedy answer to a prompt of one message, by way of completions. */
async function expectedAnswer(maxTokens: number): Promise<string> {
  const { tokens } = await server.answer<{ tokens: number[] }>("/tokenize", {
    prompt: `user: ${prompt}\nassistant: `,
    add_special_tokens: false,
  });
  const body = { prompt: tokens, max_tokens: maxTokens, temperature: 0 };
  return (await server.answer("/v1/completions", body)).choices[0]!.text;
}

describe("text", () => {
  test("generateText", async () => {
    const model = providerOf(server).chatModel("model");
    const result = await generateText({ ...common, model, prompt, maxOutputTokens: 25, temperature: 0 });
    expect(result.text).toBe(await expectedAnswer(25));
    expect(result.finishReason).toBe("length");
    expect(result.usage.outputTokens).toBe(25);
    expect(result.usage.totalTokens).toBe(result.usage.inputTokens! + 25);
  });

  test("streamText", async () => {
    const model = providerOf(server).chatModel("model");
    const result = streamText({ ...common, model, prompt, maxOutputTokens: 25, temperature: 0 });
    const pieces: string[] = [];
    for await (const piece of result.textStream) pieces.push(piece);
    expect(pieces.join("")).toBe(await expectedAnswer(25));
    expect(pieces.length).toBeGreaterThan(10);
    expect(await result.finishReason).toBe("length");
    expect((await result.usage).outputTokens).toBe(25);
  });

  test("a completion model", async () => {
    const model = providerOf(server).completionModel("model");
    const result = await generateText({
      ...common,
      model,
      prompt,
      maxOutputTokens: 10,
      stopSequences: ["\n"],
    });
    expect(result.text).not.toContain("\n");
    expect(["stop", "length"]).toContain(result.finishReason);
  });
});

describe("tools", () => {
  const watched: z.infer<typeof sighting>[] = [];
  const tools = {
    watch: tool({
      description: "Notes which animals were seen",
      inputSchema: sighting,
      execute: async (input) => {
        watched.push(input);
        return { noted: true };
      },
    }),
    sleep: tool({
      description: "Waits",
      inputSchema: z.object({ soundly: z.boolean() }),
      execute: async () => "rested",
    }),
  };

  test("a call is made with arguments of the schema, run, and told to the model", async () => {
    const model = providerOf(server).chatModel("model");
    const result = await generateText({
      ...{ ...common, model, prompt, tools, maxOutputTokens: 100 },
      toolChoice: { type: "tool", toolName: "watch" },
      stopWhen: isStepCount(2),
      // The first step must call; the second, which is told what came of it, may say what it likes.
      prepareStep: ({ stepNumber }) => (stepNumber === 0 ? {} : { toolChoice: "none" as const }),
    });
    const [first, second] = result.steps;
    expect(first!.finishReason).toBe("tool-calls");
    expect(first!.toolCalls.map(({ toolName }) => toolName)).toEqual(["watch"]);
    expect(sighting.parse(first!.toolCalls[0]!.input)).toEqual(watched[0]);
    expect(first!.toolResults[0]!.output).toEqual({ noted: true });
    expect(second!.toolCalls).toEqual([]);
    expect(second!.usage.inputTokens).toBeGreaterThan(first!.usage.inputTokens! + 10);
  });

  test("a streamed call", async () => {
    const model = providerOf(server).chatModel("model");
    const { sleep } = tools;
    const result = streamText({
      ...{ ...common, model, prompt, tools: { sleep }, maxOutputTokens: 300, temperature: 0 },
      toolChoice: "required",
      // One call: the tiny model would go on calling.
      providerOptions: { slipstream: { parallel_tool_calls: false } },
    });
    const calls = await result.toolCalls;
    expect(calls).toHaveLength(1);
    for (const { toolName, input } of calls) {
      expect(toolName).toBe("sleep");
      expect(z.strictObject({ soundly: z.boolean() }).safeParse(input).success).toBe(true);
    }
    expect(await result.finishReason).toBe("tool-calls");
  });
});

describe("structured output", () => {
  test.each([1, 2])("an object of a schema (seed %i)", async (seed) => {
    const model = providerOf(server).chatModel("model");
    const output = Output.object({ schema: sighting });
    const result = await generateText({ ...common, model, prompt, output, seed, maxOutputTokens: 120 });
    expect(sighting.parse(result.output)).toEqual(JSON.parse(result.text));
  });

  test("a streamed one grows into a whole", async () => {
    const model = providerOf(server).chatModel("model");
    const output = Output.object({ schema: sighting });
    const result = streamText({ ...common, model, prompt, output, maxOutputTokens: 120 });
    const partial: unknown[] = [];
    for await (const piece of result.partialOutputStream) partial.push(piece);
    expect(partial.length).toBeGreaterThan(1);
    expect(sighting.parse(await result.output)).toEqual(partial.at(-1));
  });

  test("one of several texts", async () => {
    const model = providerOf(server).chatModel("model");
    const options = ["by land", "by sea"];
    const output = Output.choice({ options });
    const result = await generateText({ ...common, model, prompt, output, maxOutputTokens: 60 });
    expect(options).toContain(result.output);
  });
});

test("embeddings", async () => {
  const model = providerOf(server).embeddingModel("model");
  const { embeddings, usage } = await embedMany({ maxRetries: 0, model, values: ["The whale", "The lynx"] });
  const { embedding } = await embed({ maxRetries: 0, model, value: "The lynx" });
  expect(embeddings).toHaveLength(2);
  for (const [index, value] of embedding.entries()) expect(embeddings[1]![index]).toBeCloseTo(value, 5);
  expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
  expect(usage.tokens).toBeGreaterThan(3);
});

test("a refusal is the SDK's error, with the server's words", async () => {
  const model = providerOf(server).chatModel("gpt-17");
  const refused = generateText({ ...common, model, prompt });
  await expect(refused).rejects.toSatisfy(
    (error: unknown) =>
      APICallError.isInstance(error) && error.statusCode === 404 && error.message.includes('"gpt-17"'),
  );
  const wide = providerOf(server).chatModel("model");
  const long = generateText({ ...common, model: wide, prompt: "mole ".repeat(3000) });
  await expect(long).rejects.toMatchObject({ statusCode: 400, isRetryable: false });
});

test("an abort ends the request within the server", async () => {
  const slow = await place.serve([], { environment: { SLIPSTREAM_SERVE_STEP_DELAY: "20" } });
  const model = providerOf(slow).chatModel("model");
  const controller = new AbortController();
  const { signal: abortSignal } = controller;
  const result = streamText({ ...common, model, prompt, abortSignal, maxOutputTokens: 450, temperature: 0 });
  let pieces = 0;
  let aborted = false;
  for await (const part of result.fullStream) {
    if (part.type === "text-delta" && ++pieces === 2) controller.abort();
    aborted ||= part.type === "abort";
  }
  expect(aborted).toBe(true);
  await slow.idle();
  expect(await slow.metric("vllm:request_success_total", { finished_reason: "abort" })).toBe(1);
  await slow.stop();
});
