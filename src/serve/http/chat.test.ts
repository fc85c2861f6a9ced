import { expect, test } from "vitest";
import { readEvents, startServer } from "../../../test/support/http_server.ts";
import { builtinChatTemplates } from "../chat/template.ts";

const template =
  "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}[assistant]";
const chatTemplate = builtinChatTemplates.chatml!;
const messages = [{ role: "user", content: "hi" }];

interface Delta {
  readonly role?: string;
  readonly content?: string;
  readonly tool_calls?: readonly {
    readonly index: number;
    readonly id?: string;
    readonly type?: string;
    readonly function: { readonly name?: string; readonly arguments: string };
  }[];
}

interface Chunk {
  readonly object: string;
  readonly choices: readonly {
    readonly index: number;
    readonly delta: Delta;
    readonly finish_reason: string | null;
    readonly logprobs: { readonly content: readonly object[] } | null;
  }[];
  readonly usage?: unknown;
}

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string", maxLength: 20 } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>';

test("a chat completion has OpenAI's shape, and the prompt is the template's", async () => {
  const { post, engine } = await startServer({ answer: () => "Hello!", chatTemplate: template });
  const asked = [
    { role: "system", content: "Be brief." },
    { role: "user", content: [{ type: "text", text: "hi" }] },
  ];
  const body = await (await post("/v1/chat/completions", { model: "fake", messages: asked })).json();
  const prompt = "[system]Be brief.[user]hi[assistant]";
  expect(body).toEqual({
    id: expect.stringMatching(/^chatcmpl-/),
    object: "chat.completion",
    created: expect.any(Number),
    model: "fake",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: "Hello!", refusal: null },
        logprobs: null,
        finish_reason: "stop",
        stop_reason: null,
      },
    ],
    usage: {
      prompt_tokens: prompt.length,
      completion_tokens: 7,
      total_tokens: prompt.length + 7,
      prompt_tokens_details: { cached_tokens: 2 },
    },
  });
  expect(Buffer.from(engine.requests[0]!.prompt as number[]).toString()).toBe(prompt);
  // What is left of the context, where nothing is asked for.
  expect(engine.requests[0]!.maxTokens).toBe(1024 - prompt.length);
});

test("the template of the server stands in for the model's, and the same prompt is told by /tokenize", async () => {
  const own = "<{{ messages[0].content }}|{{ mood }}>";
  const { post, engine } = await startServer({ chatTemplate: template }, { chatTemplate: own });
  const conversation = { messages, chat_template_kwargs: { mood: "calm" } };
  await (await post("/v1/chat/completions", conversation)).text();
  expect(Buffer.from(engine.requests[0]!.prompt as number[]).toString()).toBe("<hi|calm>");
  const tokens = await (await post("/tokenize", conversation)).json();
  expect(tokens).toMatchObject({ count: 9, tokens: [...Buffer.from("<hi|calm>")] });
});

test("a model without a chat template says how to get one", async () => {
  const { post } = await startServer();
  const response = await post("/v1/chat/completions", { messages });
  expect(response.status).toBe(400);
  const { error } = await response.json();
  expect(error.param).toBe("messages");
  expect(error.message).toContain("--chat-template");
});

test("max_completion_tokens goes before max_tokens", async () => {
  const { post, engine } = await startServer({ chatTemplate: template });
  await (await post("/v1/chat/completions", { messages, max_tokens: 5 })).text();
  await (await post("/v1/chat/completions", { messages, max_tokens: 5, max_completion_tokens: 3 })).text();
  expect(engine.requests.map((request) => request.maxTokens)).toEqual([5, 3]);
});

test("a stream begins with the role, adds up to the answer, and ends with reason, usage and [DONE]", async () => {
  const text = "Grüße 😀!";
  const { post } = await startServer({ answer: (_, index) => `${text}${index}`, chatTemplate: template });
  const response = await post("/v1/chat/completions", {
    messages,
    n: 2,
    stream: true,
    stream_options: { include_usage: true },
  });
  const events = await readEvents(response);
  expect(events.pop()).toBe("[DONE]");
  const chunks = events as Chunk[];
  const last = chunks.pop()!;
  expect(last.choices).toEqual([]);
  expect(last.usage).toMatchObject({ completion_tokens: 2 * (Buffer.byteLength(text) + 2) });
  for (const index of [0, 1]) {
    const own = chunks.map((chunk) => chunk.choices[0]!).filter((choice) => choice.index === index);
    expect(own[0]!.delta).toEqual({ role: "assistant", content: "" });
    expect(own.map((choice) => choice.delta.content ?? "").join("")).toBe(`${text}${index}`);
    expect(own.filter((choice) => choice.finish_reason !== null)).toEqual([own.at(-1)]);
    expect(own.at(-1)!.finish_reason).toBe("stop");
  }
  for (const chunk of chunks) expect(chunk).toMatchObject({ object: "chat.completion.chunk", usage: null });
});

test("logprobs, whole and streamed: one entry a token", async () => {
  const { post } = await startServer({ answer: () => "é", chatTemplate: template });
  const request = { messages, logprobs: true, top_logprobs: 2, max_tokens: 2 };
  const body = await (await post("/v1/chat/completions", request)).json();
  const entry = (byte: number) => ({
    token: String.fromCharCode(byte),
    logprob: -0.25,
    bytes: [byte],
    top_logprobs: [
      { token: String.fromCharCode(byte), logprob: -0.25, bytes: [byte] },
      { token: "\u0001", logprob: -2.5, bytes: [1] },
    ],
  });
  const expected = [entry(0xc3), entry(0xa9)];
  expect(body.choices[0]!.logprobs).toEqual({ content: expected, refusal: null });
  const events = await readEvents(await post("/v1/chat/completions", { ...request, stream: true }));
  const chunks = events.slice(0, -1) as Chunk[];
  expect(chunks.flatMap((chunk) => chunk.choices[0]!.logprobs?.content ?? [])).toEqual(expected);
  expect(chunks.map((chunk) => chunk.choices[0]!.delta.content ?? "").join("")).toBe("é");
});

test("a call that the model chose to make", async () => {
  const { post, engine } = await startServer({ answer: () => `Let me see.\n${call}`, chatTemplate });
  const request = { messages, tools: [weather] };
  const body = await (await post("/v1/chat/completions", request)).json();
  const { message, finish_reason: reason } = body.choices[0]!;
  expect(reason).toBe("tool_calls");
  expect(message).toEqual({
    role: "assistant",
    content: expect.stringContaining("Let me see."),
    refusal: null,
    tool_calls: [
      {
        id: expect.stringMatching(/^\S+$/),
        type: "function",
        function: { name: "get_weather", arguments: expect.any(String) },
      },
    ],
  });
  const [made] = message.tool_calls as { function: { arguments: string } }[];
  expect(JSON.parse(made!.function.arguments)).toEqual({ city: "Oslo" });
  const prompt = Buffer.from(engine.requests[0]!.prompt as number[]).toString();
  expect(prompt).toContain("get_weather");
  expect(engine.requests[0]!.grammar).toBeUndefined();
});

test("a streamed call: its name once, then its arguments in pieces", async () => {
  const { post } = await startServer({
    answer: () => `${call}\n${call.replace("Oslo", "Rom")}`,
    chatTemplate,
  });
  const response = await post("/v1/chat/completions", { messages, tools: [weather], stream: true });
  const chunks = (await readEvents(response)).slice(0, -1) as Chunk[];
  const deltas = chunks.flatMap((chunk) => chunk.choices[0]!.delta.tool_calls ?? []);
  for (const [index, city] of ["Oslo", "Rom"].entries()) {
    const own = deltas.filter((delta) => delta.index === index);
    expect(own[0]).toMatchObject({ type: "function", function: { name: "get_weather", arguments: "" } });
    expect(own[0]!.id).toBeTruthy();
    expect(own.slice(1).some((delta) => delta.id !== undefined || delta.function.name !== undefined)).toBe(
      false,
    );
    expect(JSON.parse(own.map((delta) => delta.function.arguments).join(""))).toEqual({ city });
  }
  expect(chunks.map((chunk) => chunk.choices[0]!.delta.content ?? "").join("")).not.toContain("tool_call");
  expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe("tool_calls");
});

test("tool_choice none tells the model of no tools, and reads no calls", async () => {
  const { post, engine } = await startServer({ answer: () => call, chatTemplate });
  const request = { messages, tools: [weather], tool_choice: "none" };
  const body = await (await post("/v1/chat/completions", request)).json();
  expect(body.choices[0]!.message).toEqual({ role: "assistant", content: call, refusal: null });
  expect(body.choices[0]!.finish_reason).toBe("stop");
  expect(Buffer.from(engine.requests[0]!.prompt as number[]).toString()).not.toContain("get_weather");
});

test.each(["required", { type: "function", function: { name: "get_weather" } }])(
  "tool_choice %j forces a call, whatever the model wants to say",
  async (choice) => {
    const { post } = await startServer({ answer: () => "No, I will not call anything.", chatTemplate });
    const request = { messages, tools: [weather], tool_choice: choice, parallel_tool_calls: false };
    const body = await (await post("/v1/chat/completions", request)).json();
    const { message, finish_reason: reason } = body.choices[0]!;
    const calls = message.tool_calls as { function: { name: string; arguments: string } }[];
    expect(calls).toHaveLength(1);
    expect(calls[0]!.function.name).toBe("get_weather");
    expect(JSON.parse(calls[0]!.function.arguments)).toEqual({ city: expect.any(String) });
    expect(reason).toBe("tool_calls");
  },
);

test("a function that is not among the tools cannot be chosen", async () => {
  const { post } = await startServer({ chatTemplate });
  const choice = { type: "function", function: { name: "other" } };
  const response = await post("/v1/chat/completions", { messages, tools: [weather], tool_choice: choice });
  expect(response.status).toBe(400);
  expect((await response.json()).error.param).toBe("tool_choice");
});

test("earlier calls and their results are part of the conversation", async () => {
  const { post, engine } = await startServer({ chatTemplate });
  const made = {
    id: "call_1",
    type: "function",
    function: { name: "get_weather", arguments: '{"city": "Oslo"}' },
  };
  const conversation = [
    ...messages,
    { role: "assistant", content: null, tool_calls: [made] },
    { role: "tool", tool_call_id: "call_1", content: "4 degrees" },
  ];
  const response = await post("/v1/chat/completions", { messages: conversation, tools: [weather] });
  expect(response.status).toBe(200);
  const prompt = Buffer.from(engine.requests[0]!.prompt as number[]).toString();
  expect(prompt).toContain("Oslo");
  expect(prompt).toContain("4 degrees");
});

test("a schema holds the answer to its form, whatever the model wants to say", async () => {
  const schema = {
    type: "object",
    properties: { name: { type: "string", maxLength: 8 }, age: { type: "integer", minimum: 0, maximum: 99 } },
    required: ["name", "age"],
    additionalProperties: false,
  };
  const { post } = await startServer({ answer: () => "Sure! Here is some JSON: {", chatTemplate: template });
  const ask = async (fields: object): Promise<string> => {
    const response = await post("/v1/chat/completions", { messages, max_tokens: 400, ...fields });
    expect(response.status).toBe(200);
    return String((await response.json()).choices[0]!.message.content);
  };
  const formatted = await ask({
    response_format: { type: "json_schema", json_schema: { name: "person", schema } },
  });
  expect(JSON.parse(formatted)).toEqual({ name: expect.any(String), age: expect.any(Number) });
  expect(JSON.parse(await ask({ structured_outputs: { json: schema } }))).toHaveProperty("age");
  expect(await ask({ structured_outputs: { regex: "[ab]{3}-\\d" } })).toMatch(/^[ab]{3}-\d$/);
  expect(["yes", "no"]).toContain(await ask({ structured_outputs: { choice: ["yes", "no"] } }));
  expect(await ask({ response_format: { type: "text" } })).toMatch(/^Sure!/);
});

test("what the model says stays, where it fits the schema", async () => {
  const answer = '{"city": "Oslo", "rain": [true, false]}';
  const { post } = await startServer({ answer: () => answer, chatTemplate: template });
  const request = { messages, response_format: { type: "json_object" } };
  const body = await (await post("/v1/chat/completions", request)).json();
  expect(body.choices[0]!.message.content).toBe(answer);
});

test.each<[string, object, string]>([
  [
    "a schema that refers to itself without end",
    { response_format: schemaFormat({ $ref: "#" }) },
    "response_format",
  ],
  ["a reference to nowhere", { response_format: schemaFormat({ $ref: "#/$defs/none" }) }, "response_format"],
  [
    "an expression that explodes",
    { response_format: schemaFormat({ type: "string", pattern: "^(a{1,500}){1,500}$" }) },
    "response_format",
  ],
  ["an expression that is none", { structured_outputs: { regex: "(" } }, "structured_outputs"],
  ["a look-around", { structured_outputs: { regex: "(?=a)b" } }, "structured_outputs"],
  ["two forms at once", { structured_outputs: { regex: "a", choice: ["b"] } }, "structured_outputs"],
  ["no form at all", { structured_outputs: {} }, "structured_outputs"],
  [
    "both fields",
    { structured_outputs: { regex: "a" }, response_format: { type: "json_object" } },
    "structured_outputs",
  ],
  ["a schema that is text and no JSON", { structured_outputs: { json: "{" } }, "structured_outputs"],
  [
    "a million choices",
    { structured_outputs: { choice: new Array(1e5).fill("a") } },
    "structured_outputs.choice",
  ],
  [
    "a tool whose schema refers to itself",
    {
      tools: [{ type: "function", function: { name: "f", parameters: { $ref: "#" } } }],
      tool_choice: "required",
    },
    "tools",
  ],
])("%s is refused, and the server is well", async (_, fields, param) => {
  const { post, get, engine } = await startServer({ chatTemplate });
  const response = await post("/v1/chat/completions", { messages, ...fields });
  const text = await response.text();
  expect(response.status, text).toBe(400);
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1024);
  expect(JSON.parse(text).error.param).toBe(param);
  expect((await get("/health")).status).toBe(200);
  expect(engine.requests).toEqual([]);
});

function schemaFormat(schema: object): object {
  return { type: "json_schema", json_schema: { name: "x", schema } };
}
