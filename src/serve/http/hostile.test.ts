/** What nobody should send: each is refused in OpenAI's shape, and the server lives on. */
import { connect } from "node:net";
import { expect, test } from "vitest";
import { eventually, exchangeRaw, startServer, type TestServer } from "../../../test/support/http_server.ts";

interface Refusal {
  readonly message: string;
  readonly type: string;
  readonly param: string | null;
  readonly code: string | null;
}

/** The error of a response, checked for what every refusal promises; the server must be well after it. */
async function refusal(server: TestServer, response: Response, status: number): Promise<Refusal> {
  const text = await response.text();
  expect(response.status, text).toBe(status);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("x-request-id")).toBeTruthy();
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1024);
  const { error, ...rest } = JSON.parse(text);
  expect(rest).toEqual({});
  expect(Object.keys(error)).toEqual(["message", "type", "param", "code"]);
  expect(error.type).toBe(status < 500 ? "invalid_request_error" : "server_error");
  expect((await server.get("/health")).status).toBe(200);
  expect(server.engine.requests).toEqual([]);
  return error;
}

const completions = "/v1/completions";
const chat = "/v1/chat/completions";
const messages = [{ role: "user", content: "hi" }];

test.each<[string, string | Uint8Array, string]>([
  ["nothing", "", "invalid_json"],
  ["half an object", '{"prompt": "a"', "invalid_json"],
  ["a trailing comma", '{"prompt": "a",}', "invalid_json"],
  ["NaN", '{"prompt": "a", "temperature": NaN}', "invalid_json"],
  ["an array", "[1, 2]", "invalid_json"],
  ["a text", '"hello"', "invalid_json"],
  ["null", "null", "invalid_json"],
  ["a number", "17", "invalid_json"],
  ["a lone high surrogate", '{"prompt": "a\\ud800"}', "invalid_unicode"],
  ["a lone low surrogate in a key", '{"prompt": "a", "\\udc00": 1}', "invalid_unicode"],
  ["a lone surrogate deep within", '{"prompt": "a", "x": [{"y": ["\\udfff"]}]}', "invalid_unicode"],
  [
    "bytes that are not UTF-8",
    Buffer.from([...Buffer.from('{"prompt":"'), 0xff, 0x22, 0x7d]),
    "invalid_unicode",
  ],
  [
    "an overlong encoding",
    Buffer.from([...Buffer.from('{"prompt":"'), 0xc0, 0xaf, 0x22, 0x7d]),
    "invalid_unicode",
  ],
  [
    "half a character at the end",
    Buffer.from([...Buffer.from('{"prompt":"a"}'), 0xf0, 0x9f]),
    "invalid_unicode",
  ],
  ["arrays in arrays", `{"prompt": ${"[".repeat(100_000)}${"]".repeat(100_000)}}`, "too_deep"],
  ["objects in objects", `{"prompt": ${'{"a":'.repeat(5000)}1${"}".repeat(5000)}}`, "too_deep"],
])("a body that is %s", async (_, body, code) => {
  const server = await startServer();
  for (const path of [completions, chat, "/v1/embeddings", "/tokenize", "/detokenize"]) {
    expect((await refusal(server, await server.post(path, body), 400)).code).toBe(code);
  }
});

test.each<[string, string, Record<string, unknown>, string, string]>([
  ["negative max_tokens", completions, { max_tokens: -1 }, "max_tokens", "invalid_value"],
  ["zero max_tokens", completions, { max_tokens: 0 }, "max_tokens", "invalid_value"],
  ["huge max_tokens", completions, { max_tokens: 5_000_000 }, "max_tokens", "context_length_exceeded"],
  ["max_tokens beyond integers", completions, { max_tokens: 1e300 }, "max_tokens", "invalid_value"],
  ["fractional max_tokens", completions, { max_tokens: 1.5 }, "max_tokens", "invalid_value"],
  ["max_tokens as text", completions, { max_tokens: "10" }, "max_tokens", "invalid_value"],
  ["n of five million", completions, { n: 5_000_000 }, "n", "invalid_value"],
  ["n of 0", completions, { n: 0 }, "n", "invalid_value"],
  ["more answers than n", completions, { n: 1, best_of: 4 }, "best_of", "unsupported_parameter"],
  ["logprobs of a billion", completions, { logprobs: 1e9 }, "logprobs", "invalid_value"],
  ["top_p of -1", completions, { top_p: -1 }, "top_p", "invalid_value"],
  ["top_p above 1", completions, { top_p: 1.5 }, "top_p", "invalid_value"],
  ["negative temperature", completions, { temperature: -0.1 }, "temperature", "invalid_value"],
  ["temperature above 2", completions, { temperature: 2.1 }, "temperature", "invalid_value"],
  ["top_k below -1", completions, { top_k: -2 }, "top_k", "invalid_value"],
  ["min_p above 1", completions, { min_p: 1.1 }, "min_p", "invalid_value"],
  [
    "a repetition penalty of 0",
    completions,
    { repetition_penalty: 0 },
    "repetition_penalty",
    "invalid_value",
  ],
  ["a presence penalty of 3", completions, { presence_penalty: 3 }, "presence_penalty", "invalid_value"],
  ["a fractional seed", completions, { seed: 0.5 }, "seed", "invalid_value"],
  ["an id beyond the vocabulary", completions, { prompt: [1, 258] }, "prompt[1]", "invalid_value"],
  ["a negative id", completions, { prompt: [[1], [-1]] }, "prompt[1][0]", "invalid_value"],
  ["a fractional id", completions, { prompt: [0.5] }, "prompt[0]", "invalid_value"],
  ["no prompt at all", completions, { prompt: undefined }, "prompt", "missing_required_parameter"],
  ["an empty list of prompts", completions, { prompt: [] }, "prompt", "invalid_value"],
  ["an empty prompt among others", completions, { prompt: [[1], []] }, "prompt[1]", "invalid_value"],
  ["prompts of both kinds mixed up", completions, { prompt: ["a", 1] }, "prompt[1]", "invalid_value"],
  ["an object for a prompt", completions, { prompt: { a: 1 } }, "prompt", "invalid_value"],
  ["too many prompts", completions, { prompt: new Array(129).fill("a") }, "prompt", "invalid_value"],
  [
    "too many answers in all",
    completions,
    { prompt: new Array(65).fill("a"), n: 2 },
    "prompt",
    "invalid_value",
  ],
  ["a bias beyond the vocabulary", completions, { logit_bias: { 258: 1 } }, "logit_bias", "invalid_value"],
  ["a bias for no id", completions, { logit_bias: { ["x".repeat(5000)]: 1 } }, "logit_bias", "invalid_value"],
  ["a bias of 101", completions, { logit_bias: { 1: 101 } }, "logit_bias.1", "invalid_value"],
  [
    "a stop token beyond the vocabulary",
    completions,
    { stop_token_ids: [258] },
    "stop_token_ids[0]",
    "invalid_value",
  ],
  ["a negative stop token", completions, { stop_token_ids: [3, -1] }, "stop_token_ids[1]", "invalid_value"],
  ["an empty stop text", completions, { stop: [""] }, "stop[0]", "invalid_value"],
  ["a stop of the wrong kind", completions, { stop: 5 }, "stop", "invalid_value"],
  ["a thousand stops", completions, { stop: new Array(1000).fill("a") }, "stop", "invalid_value"],
  ["min_tokens beyond max_tokens", completions, { min_tokens: 20 }, "min_tokens", "invalid_request"],
  ["a suffix", completions, { suffix: "end" }, "suffix", "unsupported_parameter"],
  ["stream options without a stream", completions, { stream_options: {} }, "stream_options", "invalid_value"],
  ["beam search", completions, { use_beam_search: true }, "use_beam_search", "unsupported_parameter"],
  [
    "a prompt beyond the context",
    completions,
    { prompt: "a".repeat(2000) },
    "prompt",
    "context_length_exceeded",
  ],
  [
    "a prompt far beyond the context",
    completions,
    { prompt: "a".repeat(9e6) },
    "prompt",
    "context_length_exceeded",
  ],
  [
    "a stream of a prompt too long",
    completions,
    { prompt: "a".repeat(2000), stream: true },
    "prompt",
    "context_length_exceeded",
  ],
  ["top_logprobs of a billion", chat, { logprobs: true, top_logprobs: 1e9 }, "top_logprobs", "invalid_value"],
  ["top_logprobs without logprobs", chat, { top_logprobs: 2 }, "top_logprobs", "invalid_value"],
  [
    "huge max_completion_tokens",
    chat,
    { max_completion_tokens: 1e9 },
    "max_completion_tokens",
    "context_length_exceeded",
  ],
  ["no messages", chat, { messages: undefined }, "messages", "missing_required_parameter"],
  ["an empty conversation", chat, { messages: [] }, "messages", "invalid_value"],
  ["messages that are a text", chat, { messages: "hi" }, "messages", "invalid_value"],
  [
    "an unknown role",
    chat,
    { messages: [{ role: "boss", content: "x" }] },
    "messages[0].role",
    "invalid_value",
  ],
  [
    "a message without content",
    chat,
    { messages: [{ role: "user" }] },
    "messages[0].content",
    "invalid_value",
  ],
  [
    "a picture",
    chat,
    { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
    "messages[0].content[0]",
    "invalid_value",
  ],
  [
    "a part without its text",
    chat,
    { messages: [{ role: "user", content: [{ type: "text" }] }] },
    "messages[0].content[0]",
    "invalid_value",
  ],
  [
    "a long conversation",
    chat,
    { messages: [{ role: "user", content: "a".repeat(1100) }] },
    "messages",
    "context_length_exceeded",
  ],
  [
    "a response format of no kind",
    chat,
    { response_format: { type: "yaml" } },
    "response_format.type",
    "invalid_value",
  ],
  [
    "a schema that is none",
    chat,
    { response_format: { type: "json_schema", json_schema: { schema: 5 } } },
    "response_format.json_schema.schema",
    "invalid_value",
  ],
  [
    "a tool with a bad name",
    chat,
    { tools: [{ type: "function", function: { name: "a b" } }] },
    "tools[0].function.name",
    "invalid_value",
  ],
  ["a choice without tools", chat, { tool_choice: "required" }, "tool_choice", "invalid_value"],
  ["deprecated functions", chat, { functions: [{ name: "f" }] }, "functions", "unsupported_parameter"],
  [
    "a template of the client's own",
    chat,
    { chat_template: "{% for i in range(9**9) %}" },
    "chat_template",
    "unsupported_parameter",
  ],
])("%s", async (_, path, fields, param, code) => {
  const server = await startServer({ chatTemplate: "{{ messages[0].content }}" });
  const valid = path === chat ? { messages } : { prompt: "a" };
  const error = await refusal(server, await server.post(path, { ...valid, ...fields }), 400);
  expect(error).toMatchObject({ param, code });
});

test("an unknown model is a 404, named within bounds", async () => {
  const server = await startServer();
  const other = await refusal(server, await server.post(completions, { model: "gpt-4", prompt: "a" }), 404);
  expect(other).toMatchObject({ param: "model", code: "model_not_found" });
  expect(other.message).toContain('"gpt-4"');
  for (const model of ["x".repeat(100_000), "\u0000".repeat(10_000), "😀".repeat(50_000)]) {
    await refusal(server, await server.post(chat, { model, messages }), 404);
  }
});

test("a content type that is not JSON, or a body that is packed", async () => {
  const server = await startServer();
  for (const type of [
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json; charset=latin1",
  ]) {
    const response = await server.post(completions, '{"prompt":"a"}', { "content-type": type });
    expect((await refusal(server, response, 415)).code).toBe("unsupported_media_type");
  }
  const packed = await server.post(completions, '{"prompt":"a"}', { "content-encoding": "gzip" });
  await refusal(server, packed, 415);
  const fine = await server.post(completions, '{"prompt":"a"}', {
    "content-type": "Application/JSON; charset=UTF-8",
  });
  expect(fine.status).toBe(200);
});

test("a body over the limit, whether its length is told or not", async () => {
  const server = await startServer({}, { maximumBodyBytes: 1000 });
  const body = JSON.stringify({ prompt: "a".repeat(5000) });
  expect((await refusal(server, await server.post(completions, body), 413)).code).toBe("body_too_large");
  const untold = fetch(server.url + completions, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: new Blob([body]).stream(),
    duplex: "half",
  } as RequestInit);
  await refusal(server, await untold, 413);
});

test("a body over the limit is refused from its headers, and a client that asked is never told to go on", async () => {
  const server = await startServer({}, { maximumBodyBytes: 1000, timeouts: { linger: 50 } });
  const head = `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n`;
  const huge = `${head}content-length: 99999999\r\n`;
  expect(await exchangeRaw(server.url, `${huge}\r\n`)).toMatch(/^HTTP\/1\.1 413 /);
  expect(await exchangeRaw(server.url, `${huge}expect: 100-continue\r\n\r\n`)).toMatch(/^HTTP\/1\.1 413 /);
  const small = `${head}connection: close\r\ncontent-length: 14\r\nexpect: 100-continue\r\n\r\n`;
  const answer = await exchangeRaw(server.url, small, '{"prompt":"a"}');
  expect(answer).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/);
});

test("a refused body is not kept, and does not hold the connection", async () => {
  const server = await startServer({}, { maximumBodyBytes: 1000, timeouts: { linger: 50 } });
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  const closed = new Promise((resolve) => socket.on("close", resolve));
  socket.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
  socket.write("transfer-encoding: chunked\r\n\r\n");
  const timer = setInterval(() => socket.write(`fff\r\n${"a".repeat(0xfff)}\r\n`), 5);
  await closed;
  clearInterval(timer);
  expect((await server.get("/health")).status).toBe(200);
});

test("paths that climb, that are badly encoded, or that are nowhere", async () => {
  const server = await startServer();
  const request = (path: string) =>
    exchangeRaw(server.url, `GET ${path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`);
  for (const path of [
    "/../../etc/passwd",
    "/v1/models/../../../etc/passwd",
    "/v1/models/..%2f..%2fetc%2fpasswd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/v1/completions/",
    "/v1/models/",
    "/__proto__",
    "/constructor",
    `/${"a".repeat(9000)}`,
    "*",
    "http://elsewhere/v1/models",
  ]) {
    const answer = await request(path);
    expect(answer, path).toMatch(/^HTTP\/1\.1 404 /);
    expect(answer).toContain('"error":{"message":');
    expect(Buffer.byteLength(answer)).toBeLessThan(1500);
  }
  expect(await request("/v1/models/%zz")).toMatch(/^HTTP\/1\.1 400 /);
  expect((await server.get("/health")).status).toBe(200);
});

test("the wrong method is told the right one", async () => {
  const server = await startServer();
  const response = await server.get(completions);
  expect(response.headers.get("allow")).toBe("POST");
  await refusal(server, response, 405);
  const deleted = await fetch(`${server.url}/v1/models`, { method: "DELETE" });
  expect(deleted.headers.get("allow")).toBe("GET, HEAD");
  await refusal(server, deleted, 405);
});

test("a missing or wrong key, of which nothing is told", async () => {
  const server = await startServer({}, { apiKeys: ["sk-first", "sk-second"] });
  const cases: Record<string, string>[] = [
    {},
    { authorization: "Bearer sk-fir" },
    { authorization: "Bearer sk-first2" },
    { authorization: "Bearer" },
    { authorization: "Basic sk-first" },
    { authorization: "sk-first" },
    { authorization: `Bearer ${"x".repeat(8000)}` },
  ];
  for (const headers of cases) {
    for (const response of [
      await server.post(completions, { prompt: "a" }, headers),
      await server.get("/v1/models", headers),
    ]) {
      expect(response.headers.get("www-authenticate")).toBe("Bearer");
      const error = await refusal(server, response, 401);
      expect(error.code).toBe("invalid_api_key");
      expect(error.message).not.toContain("sk-");
    }
  }
  for (const key of ["sk-first", "sk-second"]) {
    const response = await server.post(completions, { prompt: "a" }, { authorization: `Bearer ${key}` });
    expect(response.status).toBe(200);
  }
});

test("what is no HTTP, headers without end, and headers that never come", async () => {
  const server = await startServer({}, { timeouts: { headers: 200, request: 400 } });
  expect(await exchangeRaw(server.url, "GET /health SMTP\r\n\r\n")).toMatch(
    /^HTTP\/1\.1 400 [\s\S]*"invalid_http"/,
  );
  const large = `GET /health HTTP/1.1\r\nx: ${"a".repeat(20_000)}\r\n\r\n`;
  expect(await exchangeRaw(server.url, large)).toMatch(/^HTTP\/1\.1 431 [\s\S]*"headers_too_large"/);
  expect(await exchangeRaw(server.url, "GET /health HTTP/1.1\r\n")).toMatch(
    /^HTTP\/1\.1 408 [\s\S]*"request_timeout"/,
  );
  const head =
    "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n";
  expect(await exchangeRaw(server.url, head, '{"prompt"')).toMatch(
    /^HTTP\/1\.1 408 [\s\S]*"request_timeout"/,
  );
  expect((await server.get("/health")).status).toBe(200);
});

test("a body that breaks off", async () => {
  const server = await startServer();
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n");
  socket.write('content-length: 50\r\n\r\n{"prompt"');
  await eventually(() => socket.bytesWritten > 100);
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.destroy();
  await eventually(() => server.logged.some((line) => line.status === 499));
  expect((await server.get("/health")).status).toBe(200);
});

test("a full queue is refused before the body is read, with the time to come again", async () => {
  const server = await startServer({
    maximumRunning: 1,
    maximumWaiting: 1,
    stepMilliseconds: 5,
    answer: () => "x".repeat(1000),
  });
  const gone = new AbortController();
  const ask = () =>
    fetch(server.url + completions, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", max_tokens: 900 }),
      signal: gone.signal,
    });
  const first = ask().catch(() => {});
  await eventually(() => server.engine.statistics.running === 1);
  const second = ask().catch(() => {});
  await eventually(() => server.engine.statistics.waiting === 1);
  const refused = await server.post(chat, "not even JSON");
  expect(refused.status).toBe(503);
  expect(refused.headers.get("retry-after")).toBe("1");
  expect((await refused.json()).error).toMatchObject({ code: "queue_full", type: "server_error" });
  expect((await server.post("/tokenize", { prompt: "a" })).status).toBe(200);
  expect((await server.get("/health")).status).toBe(200);
  gone.abort();
  await Promise.all([first, second]);
  await eventually(() => server.engine.statistics.running + server.engine.statistics.waiting === 0);
});

test("of several prompts none runs where not all may wait", async () => {
  const server = await startServer({ maximumWaiting: 2 });
  const refused = await server.post(completions, { prompt: ["a", "b", "c"] });
  expect(refused.status).toBe(503);
  expect(refused.headers.get("retry-after")).toBe("1");
  await eventually(() => server.engine.statistics.waiting + server.engine.statistics.running === 0);
});
