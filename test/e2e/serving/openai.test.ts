/** The server behind OpenAI's own client. */
import { Ajv } from "ajv";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually, type LiveServer, ServingPlace } from "./support.ts";

const key = "sk-of-this-test";
const model = "tiny";
const prompt = "The whale looks at";
const messages = [{ role: "user" as const, content: "The heron follows the lynx" }];

let place: ServingPlace;
let server: LiveServer;
let client: OpenAI;

beforeAll(async () => {
  place = await ServingPlace.create();
  server = await place.serve(["--served-model-name", model, "--served-model-name", "other"], {
    environment: { SLIPSTREAM_API_KEY: key, SLIPSTREAM_SERVE_CHECK: "1" },
  });
  client = new OpenAI({ baseURL: server.baseURL, apiKey: key, maxRetries: 0 });
});
afterAll(() => place.close());

/** Ids of a text, without the token that begins texts. */
async function idsOf(text: string): Promise<number[]> {
  const sending = { headers: { authorization: `Bearer ${key}` } };
  const body = { prompt: text, add_special_tokens: false };
  return (await server.answer<{ tokens: number[] }>("/tokenize", body, sending)).tokens;
}

/** A greedy answer of some length. */
async function greedy(fields: Partial<OpenAI.CompletionCreateParamsNonStreaming> = {}) {
  return await client.completions.create({ model, prompt, max_tokens: 40, temperature: 0, ...fields });
}

test("models", async () => {
  const { data } = await client.models.list();
  expect(data.map(({ id }) => id)).toEqual([model, "other"]);
  expect(await client.models.retrieve("other")).toMatchObject({ id: "other", object: "model" });
});

describe("completions", () => {
  test("text and token ids are the same prompt, and a list of prompts is answered in order", async () => {
    const answer = await greedy();
    expect(answer).toMatchObject({ object: "text_completion", model });
    expect(answer.choices).toHaveLength(1);
    const { text } = answer.choices[0]!;
    expect(text).toBe((await place.generate(prompt, 40)).text);
    expect(answer.choices[0]!.finish_reason).toBe("length");
    expect(answer.usage).toMatchObject({ completion_tokens: 40 });

    // 0 begins texts in this tokenizer, which adds it to text and leaves ids as they are.
    const ids = [0, ...(await idsOf(prompt))];
    expect(answer.usage!.prompt_tokens).toBe(ids.length);
    expect((await greedy({ prompt: ids })).choices[0]!.text).toBe(text);
    const several = await greedy({ prompt: ["The mole", prompt] });
    expect(several.choices.map(({ index }) => index)).toEqual([0, 1]);
    expect(several.choices[1]!.text).toBe(text);
    expect(several.choices[0]!.text).toBe((await greedy({ prompt: "The mole" })).choices[0]!.text);
    expect((await greedy({ prompt: [ids, ids] })).choices.map((choice) => choice.text)).toEqual([text, text]);
    expect((await greedy({ echo: true })).choices[0]!.text).toBe(prompt + text);
  });

  test("a stream says the same, with its usage at the end", async () => {
    const { choices, usage } = await greedy({ n: 2 });
    const stream = await client.completions.create({
      ...{ model, prompt, max_tokens: 40, temperature: 0, n: 2 },
      ...{ stream: true, stream_options: { include_usage: true } },
    });
    const texts = ["", ""];
    const reasons: unknown[] = [];
    const usages: unknown[] = [];
    let events = 0;
    for await (const chunk of stream) {
      events++;
      usages.push(chunk.usage);
      if (chunk.usage != null) expect(chunk.choices).toEqual([]);
      for (const choice of chunk.choices) {
        texts[choice.index] += choice.text;
        if (choice.finish_reason !== null) reasons[choice.index] = choice.finish_reason;
      }
    }
    expect(texts).toEqual(choices.map(({ text }) => text));
    expect(reasons).toEqual(["length", "length"]);
    expect(events).toBeGreaterThan(20);
    expect(usages.slice(0, -1).every((value) => value === null)).toBe(true);
    const { prompt_tokens_details: _, ...counts } = usage!;
    expect(usages.at(-1)).toMatchObject(counts);
    expect(counts.completion_tokens).toBe(80);
  });

  test("log-probabilities of tokens and of their rivals", async () => {
    const { choices } = await greedy({ logprobs: 3 });
    const { text, logprobs } = choices[0]!;
    const { tokens, token_logprobs: chosen, top_logprobs: top, text_offset: offsets } = logprobs!;
    expect(tokens!.join("")).toBe(text);
    expect([tokens!.length, chosen!.length, top!.length, offsets!.length]).toEqual([40, 40, 40, 40]);
    let offset = 0;
    for (const [index, rivals] of top!.entries()) {
      expect(offsets![index]).toBe(offset);
      offset += tokens![index]!.length;
      const values = Object.values(rivals);
      expect(values.length).toBe(3);
      // Greedy: the token is the likeliest, and all together are no more likely than certain.
      expect(chosen![index]).toBe(Math.max(...values));
      expect(rivals[tokens![index]!]).toBe(chosen![index]);
      const likelihood = values.reduce((sum, value) => sum + Math.exp(value), 0);
      expect(likelihood).toBeGreaterThan(0);
      expect(likelihood).toBeLessThanOrEqual(1 + 1e-5);
    }
  });

  test("a bias forces a token, and bans one", async () => {
    const [id] = await idsOf("otter");
    const { choices } = await greedy({ logit_bias: { [id!]: 100 }, max_tokens: 7, logprobs: 0 });
    const forced = choices[0]!.logprobs!.tokens!;
    expect(forced).toHaveLength(7);
    expect(new Set(forced).size).toBe(1);
    const [likeliest] = await idsOf((await greedy({ max_tokens: 1 })).choices[0]!.text);
    const banned = await greedy({ logit_bias: { [likeliest!]: -100 }, max_tokens: 1 });
    expect(await idsOf(banned.choices[0]!.text)).not.toContain(likeliest);
  });

  test("a seed gives the same answer, whatever else runs; without one answers differ", async () => {
    const sampled = (seed?: number) =>
      client.completions.create({ model, prompt, max_tokens: 30, ...(seed === undefined ? {} : { seed }) });
    const textOf = async (seed?: number): Promise<string> => (await sampled(seed)).choices[0]!.text;
    const first = await textOf(7);
    const many = await Promise.all([7, 1, 7, 2, 3, undefined, 7, undefined].map((seed) => textOf(seed)));
    expect([many[0], many[2], many[6]]).toEqual([first, first, first]);
    expect(new Set(many).size).toBe(6);
    const several = () => client.completions.create({ model, prompt, max_tokens: 30, seed: 7, n: 3 });
    const [one, two] = [await several(), await several()];
    const texts = one.choices.map(({ text }) => text);
    expect(one.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(texts[0]).toBe(first);
    expect(new Set(texts).size).toBe(3);
    expect(two.choices.map(({ text }) => text)).toEqual(texts);
  });

  test("an answer ends before a stop text, within whatever tokens it begins", async () => {
    const { text } = (await greedy()).choices[0]!;
    for (const at of [3, 11, 20]) {
      const stop = text.slice(at, at + 5);
      const expected = text.slice(0, text.indexOf(stop));
      const whole = await greedy({ stop: ["never seen", stop] });
      expect(whole.choices[0]).toMatchObject({ text: expected, finish_reason: "stop", stop_reason: stop });
      const stream = await client.completions.create({
        ...{ model, prompt, max_tokens: 40, temperature: 0, stop, stream: true },
      });
      let streamed = "";
      for await (const { choices } of stream) streamed += choices[0]!.text;
      expect(streamed).toBe(expected);
    }
  });
});

describe("chat", () => {
  test("the template's text is the prompt, and max_completion_tokens holds", async () => {
    const answer = await client.chat.completions.create({
      model,
      messages: [{ role: "system", content: "Be brief." }, ...messages],
      max_completion_tokens: 12,
      temperature: 0,
    });
    const written = "system: Be brief.\nuser: The heron follows the lynx\nassistant: ";
    const ids = await idsOf(written);
    expect(answer.usage).toMatchObject({ prompt_tokens: ids.length, completion_tokens: 12 });
    const { message, finish_reason: reason } = answer.choices[0]!;
    expect(message).toMatchObject({ role: "assistant", refusal: null });
    expect(message.content).toBe((await greedy({ prompt: ids, max_tokens: 12 })).choices[0]!.text);
    expect(reason).toBe("length");
    const parts = await client.chat.completions.create({
      model,
      messages: [
        { role: "system", content: "Be brief." },
        { role: "user", content: [{ type: "text", text: "The heron follows the lynx" }] },
      ],
      max_completion_tokens: 12,
      temperature: 0,
    });
    expect(parts.choices[0]!.message.content).toBe(message.content);
  });

  test("a stream of three answers with log-probabilities", async () => {
    const fields = { model, messages, n: 3, seed: 5, max_completion_tokens: 20 };
    const { choices } = await client.chat.completions.create({ ...fields, logprobs: true, top_logprobs: 2 });
    for (const { message, logprobs } of choices) {
      const content = logprobs!.content!;
      expect(content.map(({ token }) => token).join("")).toBe(message.content);
      expect(Buffer.from(content.flatMap(({ bytes }) => bytes!)).toString()).toBe(message.content);
      for (const { top_logprobs: top } of content) expect(top).toHaveLength(2);
    }
    const runner = client.chat.completions.stream({
      ...{ ...fields, logprobs: true, top_logprobs: 2 },
      stream_options: { include_usage: true },
    });
    const final = await runner.finalChatCompletion();
    expect(final.usage).toMatchObject({ completion_tokens: 60 });
    expect(final.choices.map(({ message }) => message.content)).toEqual(
      choices.map(({ message }) => message.content),
    );
    // The prompt is in the cache by now, and computed in pieces of another size: equal but for rounding.
    const likelihoods = (of: readonly { logprobs: OpenAI.ChatCompletion.Choice["logprobs"] }[]): number[] =>
      of.flatMap(({ logprobs }) => logprobs!.content!.map(({ logprob }) => logprob));
    const streamed = likelihoods(final.choices);
    expect(streamed).toHaveLength(60);
    for (const [index, value] of likelihoods(choices).entries())
      expect(streamed[index]).toBeCloseTo(value, 4);
  });

  test("a request whose stream is left frees what it held", async () => {
    // Slow enough that an answer of full length still runs when a client has read its first pieces.
    const slow = await place.serve([], { environment: { SLIPSTREAM_SERVE_STEP_DELAY: "20" } });
    const own = new OpenAI({ baseURL: slow.baseURL, apiKey: "none", maxRetries: 0 });
    const long = { model: "model", max_tokens: 450, ignore_eos: true };
    const stream = await own.chat.completions.create({ ...long, messages, stream: true });
    let chunks = 0;
    for await (const _ of stream) if (++chunks === 3) break;
    const controller = new AbortController();
    const whole = own.completions.create({ ...long, prompt }, { signal: controller.signal });
    await Promise.all([
      expect(whole).rejects.toThrow(OpenAI.APIUserAbortError),
      eventually("it runs", async () => (await slow.metric("vllm:kv_cache_usage_perc")) > 0).then(() =>
        controller.abort(),
      ),
    ]);
    await slow.idle();
    const aborted = await slow.metric("vllm:request_success_total", { finished_reason: "abort" });
    expect(aborted).toBe(2);
    await slow.stop();
  });
});

describe("what an answer must be", () => {
  const ajv = new Ajv({ strict: true });
  const parameters = {
    type: "object",
    properties: {
      animal: { enum: ["whale", "otter", "heron"] },
      count: { type: "integer", minimum: 0, maximum: 20 },
      tags: { type: "array", items: { type: "string", maxLength: 6 }, maxItems: 2 },
      note: { anyOf: [{ type: "null" }, { type: "string", pattern: "^[a-z]{2,5}$" }] },
    },
    required: ["animal", "count"],
    additionalProperties: false,
  };
  const tool = (name: string, schema: Record<string, unknown>) =>
    ({ type: "function", function: { name, description: "of a test", parameters: schema } }) as const;
  const tools = [
    tool("watch", parameters),
    tool("sleep", {
      type: "object",
      properties: { soundly: { type: "boolean" } },
      required: ["soundly"],
      additionalProperties: false,
    }),
  ];
  const validators = new Map(
    tools.map(({ function: { name, parameters: schema } }) => [name, ajv.compile(schema)]),
  );
  const isValid = (name: string, text: string): boolean => validators.get(name)!(JSON.parse(text));
  const fields = { model, messages, max_completion_tokens: 300 };

  test.each([1, 2, 3])("a required call has arguments of its schema (seed %i)", async (seed) => {
    const { choices, usage } = await client.chat.completions.create({
      ...{ ...fields, tools, seed, tool_choice: "required", parallel_tool_calls: false },
    });
    const { message, finish_reason: reason } = choices[0]!;
    expect(reason).toBe("tool_calls");
    expect(message.content).toBeNull();
    expect(message.tool_calls).toHaveLength(1);
    const call = message.tool_calls![0]! as OpenAI.ChatCompletionMessageFunctionToolCall;
    expect(call.id).toMatch(/^call_\w+$/);
    expect(isValid(call.function.name, call.function.arguments)).toBe(true);
    // The template tells the model of the tools.
    const plain = await client.chat.completions.create({ ...fields, max_completion_tokens: 1 });
    expect(usage!.prompt_tokens).toBeGreaterThan(plain.usage!.prompt_tokens + 10);
  });

  test("a named call, streamed, is the call of the whole answer; and what came of it can be told", async () => {
    const chosen = {
      ...{ ...fields, tools, seed: 11 },
      tool_choice: { type: "function" as const, function: { name: "watch" } },
    };
    const { choices } = await client.chat.completions.create(chosen);
    const [whole] = choices[0]!.message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
    expect(whole!.function.name).toBe("watch");
    expect(isValid("watch", whole!.function.arguments)).toBe(true);

    const runner = client.chat.completions.stream(chosen);
    let deltas = 0;
    runner.on("tool_calls.function.arguments.delta", () => deltas++);
    const { message, finish_reason: reason } = (await runner.finalChatCompletion()).choices[0]!;
    const [streamed] = message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[];
    expect(streamed!.function).toMatchObject(whole!.function);
    expect(reason).toBe("tool_calls");
    expect(deltas).toBeGreaterThan(3);

    const next = await client.chat.completions.create({
      ...{ model, tools, max_completion_tokens: 5, tool_choice: "none" },
      messages: [...messages, message, { role: "tool", tool_call_id: streamed!.id, content: "seen" }],
    });
    expect(next.choices[0]!.message.tool_calls).toBeUndefined();
    expect(typeof next.choices[0]!.message.content).toBe("string");
  });

  test("several calls at once are numbered", async () => {
    const { choices } = await client.chat.completions.create({
      ...{ ...fields, tools: [tools[1]!], seed: 2, tool_choice: "required", n: 4, temperature: 2 },
    });
    for (const { message } of choices) {
      for (const call of message.tool_calls as OpenAI.ChatCompletionMessageFunctionToolCall[]) {
        expect(isValid("sleep", call.function.arguments)).toBe(true);
      }
    }
  });

  test.each([1, 2, 3])("a schema holds for every answer (seed %i)", async (seed) => {
    const { choices } = await client.chat.completions.create({
      ...{ ...fields, seed, n: 2 },
      response_format: {
        type: "json_schema",
        json_schema: { name: "seen", strict: true, schema: parameters },
      },
    });
    expect(choices.map((choice) => choice.finish_reason)).toEqual(["stop", "stop"]);
    for (const { message } of choices) expect(isValid("watch", message.content!)).toBe(true);
  });

  test("any object, one of some texts, and what fits an expression", async () => {
    // Nothing but braces is likely, and the grammar leaves one way to write them.
    const [open, close] = [await idsOf("{"), await idsOf("}")];
    const logit_bias = { [open[0]!]: 100, [close[0]!]: 100 };
    const braces = { ...fields, logit_bias, temperature: 0, max_completion_tokens: 8 };
    const contentOf = ({ choices }: OpenAI.ChatCompletion): string => choices[0]!.message.content!;
    expect(contentOf(await client.chat.completions.create(braces))).toMatch(/^[{}]{8}$/);
    const object = { ...braces, response_format: { type: "json_object" as const } };
    expect(contentOf(await client.chat.completions.create(object))).toBe("{}");

    const choice = ["a hippopotamus", "a zebra"];
    const chosen = { ...fields, structured_outputs: { choice } };
    expect(choice).toContain(contentOf(await client.chat.completions.create(chosen)));
    const fitting = { ...fields, structured_outputs: { regex: "[0-9]{3}-[A-F]+x{0,4}!" }, stop: ["!"] };
    const { choices } = await client.chat.completions.create({ ...fitting, logit_bias: {}, seed: 1 });
    expect(choices[0]!.message.content).toMatch(/^[0-9]{3}-[A-F]+x{0,4}$/);
  });
});

test("characters of several tokens are streamed whole, and counted in bytes", async () => {
  const wanted = "naïve 漢字 👩‍🚀!";
  const fields = {
    ...{ model, prompt, max_tokens: 60, logprobs: 1, structured_outputs: { choice: [wanted] } },
  };
  const stream = await client.completions.create({ ...fields, stream: true });
  let text = "";
  let tokens = 0;
  for await (const { choices } of stream) {
    // Half a character would be written as the mark that stands for what is none.
    expect(choices[0]!.text.isWellFormed()).toBe(true);
    expect(choices[0]!.text).not.toContain("\ufffd");
    text += choices[0]!.text;
    tokens += choices[0]!.logprobs?.tokens?.length ?? 0;
  }
  expect(text).toBe(wanted);
  // The vocabulary is bytes and what the training text holds: none of these characters is a token.
  expect(tokens).toBeGreaterThan(20);
  const stopped = await client.completions.create({ ...fields, stop: "字" });
  expect(stopped.choices[0]!.text).toBe("naïve 漢");
  const { choices } = await client.chat.completions.create({
    ...{ model, messages, max_completion_tokens: 60, logprobs: true },
    ...{ structured_outputs: fields.structured_outputs },
  });
  const { content } = choices[0]!.logprobs!;
  const bytes = Buffer.from(content!.flatMap((entry) => entry.bytes!)).toString();
  // The token that ends the text may be told of as well.
  expect(bytes.startsWith(wanted)).toBe(true);
  expect(choices[0]!.message.content).toBe(wanted);
});

test("embeddings are unit vectors, the same as numbers and as base64, alone and together", async () => {
  const input = ["The whale", "The mole hears the otter at noon"];
  // The client asks for base64 by itself and unpacks it.
  const packed = await client.embeddings.create({ model, input });
  const numbers = await client.embeddings.create({ model, input, encoding_format: "float" });
  expect(packed.data).toEqual(numbers.data);
  expect(numbers.data.map(({ index, object }) => [index, object])).toEqual([
    [0, "embedding"],
    [1, "embedding"],
  ]);
  for (const { embedding } of numbers.data) {
    expect(embedding).toHaveLength(32);
    expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
  }
  const ids = [0, ...(await idsOf(input[1]!))];
  // While answers are being written, too.
  const [busy] = await Promise.all([
    client.embeddings.create({ model, input, encoding_format: "float" }),
    ...Array.from({ length: 8 }, () => greedy({ max_tokens: 100 })),
  ]);
  expect(busy.data).toEqual(numbers.data);
  const alone = await client.embeddings.create({ model, input: ids, encoding_format: "float" });
  const difference = alone.data[0]!.embedding.map(
    (value, index) => value - numbers.data[1]!.embedding[index]!,
  );
  expect(Math.hypot(...difference)).toBeLessThan(1e-5);
  expect(alone.usage).toEqual({ prompt_tokens: ids.length, total_tokens: ids.length });
  expect(
    Math.hypot(...numbers.data[0]!.embedding.map((v, i) => v - numbers.data[1]!.embedding[i]!)),
  ).toBeGreaterThan(0.01);
});

test("refusals are the client's typed errors", async () => {
  const refused = async (promise: Promise<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> => {
    const error: unknown = await promise.then(
      () => new Error("it was not refused"),
      (reason: unknown) => reason,
    );
    if (error instanceof OpenAI.APIError) return error;
    throw error;
  };
  const bad = await refused(greedy({ top_p: -1 }));
  expect(bad).toBeInstanceOf(OpenAI.BadRequestError);
  expect(bad).toMatchObject({ status: 400, param: "top_p", code: "invalid_value" });
  expect(bad.type).toBe("invalid_request_error");
  expect(bad.requestID).toBeTruthy();

  const long = await refused(
    client.chat.completions.create({
      model,
      messages: [{ role: "user", content: "mole ".repeat(2000) }],
      stream: true,
    }),
  );
  expect(long).toBeInstanceOf(OpenAI.BadRequestError);
  expect(long).toMatchObject({ code: "context_length_exceeded", param: "messages" });

  const unknown = await refused(greedy({ model: "gpt-17" }));
  expect(unknown).toBeInstanceOf(OpenAI.NotFoundError);
  expect(unknown).toMatchObject({ code: "model_not_found", param: "model" });
  expect(await refused(client.models.retrieve("gpt-17"))).toBeInstanceOf(OpenAI.NotFoundError);

  const stranger = client.withOptions({ apiKey: "sk-wrong" });
  const locked = await refused(stranger.models.list());
  expect(locked).toBeInstanceOf(OpenAI.AuthenticationError);
  expect(locked).toMatchObject({ status: 401, code: "invalid_api_key" });
  expect(locked.message).not.toContain("sk-wrong");
});
