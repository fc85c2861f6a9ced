/** What nobody should send to a real server: each is refused in OpenAI's shape, and the server lives on. */
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type LiveServer, prompts, ServingPlace } from "./support.ts";

const key = "sk-of-this-test";
const completions = "/v1/completions";
const chat = "/v1/chat/completions";
const embeddings = "/v1/embeddings";
const bodyLimit = 256 * 1024;
/** Stands in what is sent; must not come back where that is long, nor be logged. */
const secret = "correct-horse-battery";

let place: ServingPlace;
let server: LiveServer;
/** What a decent request is answered. */
let decent: string;

async function askDecently(): Promise<string> {
  const body = { prompt: prompts[0], max_tokens: 24, temperature: 0 };
  const { choices } = await server.answer(completions, body, { headers: { authorization: `Bearer ${key}` } });
  return choices[0]!.text;
}

beforeAll(async () => {
  place = await ServingPlace.create();
  server = await place.serve([
    "--api-key",
    key,
    "--max-body",
    String(bodyLimit),
    "--max-answers",
    "16",
    "--max-sequences",
    "8",
  ]);
  decent = await askDecently();
});
afterAll(() => place.close());

/** The one thing that is checked after every request: a refusal within bounds, by a server that is well. */
async function expectRefusal(
  pending: Promise<Response>,
  status: number,
): Promise<{ message: string; type: string; param: string | null; code: string | null }> {
  const response = await pending;
  const text = await response.text();
  expect(response.status, text.slice(0, 300)).toBe(status);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1024);
  const { error, ...rest } = JSON.parse(text);
  expect(rest).toEqual({});
  expect(Object.keys(error)).toEqual(["message", "type", "param", "code"]);
  expect(error.type).toBe("invalid_request_error");
  expect(typeof error.message).toBe("string");
  // Neither code nor folders of the inside.
  expect(error.message).not.toMatch(/\.ts\b|\bat .*:\d+|node:|\/src\//);
  expect(await server.health()).toBe(200);
  return error;
}

function send(path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return server.post(path, body, { headers: { authorization: `Bearer ${key}`, ...headers } });
}

const messages = [{ role: "user", content: secret }];
const valid: Readonly<Record<string, object>> = {
  [completions]: { prompt: secret },
  [chat]: { messages },
  [embeddings]: { input: secret },
};

describe("bodies", () => {
  const bytes = (...parts: (string | number)[]): Buffer =>
    Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Buffer.from([part]))));

  test.each<[string, string | Uint8Array, string]>([
    ["nothing", "", "invalid_json"],
    ["half an object", `{"prompt": "${secret}`, "invalid_json"],
    ["a comma too many", '{"prompt": "a",}', "invalid_json"],
    ["two objects", '{"prompt": "a"}{"prompt": "b"}', "invalid_json"],
    ["an array", '[{"prompt": "a"}]', "invalid_json"],
    ["a text", JSON.stringify(secret), "invalid_json"],
    ["null", "null", "invalid_json"],
    ["a number", "1e400", "invalid_json"],
    ["a lone surrogate in a value", '{"prompt": "a\\ud83d"}', "invalid_unicode"],
    ["a lone surrogate in a key", '{"prompt": "a", "\\udc00": 1}', "invalid_unicode"],
    [
      "a lone surrogate in a message",
      '{"messages": [{"role": "user", "content": "\\udfff"}]}',
      "invalid_unicode",
    ],
    ["a byte that is no UTF-8", bytes('{"prompt": "', 0xff, '"}'), "invalid_unicode"],
    ["a surrogate in UTF-8", bytes('{"prompt": "', 0xed, 0xa0, 0x80, '"}'), "invalid_unicode"],
    ["an overlong slash", bytes('{"prompt": "', 0xc0, 0xaf, '"}'), "invalid_unicode"],
    ["UTF-16", Buffer.from('{"prompt": "a"}', "utf16le"), "invalid_json"],
    ["arrays within arrays", `{"prompt": ${"[".repeat(9000)}${"]".repeat(9000)}}`, "too_deep"],
  ])("%s", async (_, body, code) => {
    for (const path of [completions, chat, embeddings]) {
      expect((await expectRefusal(send(path, body), 400)).code).toBe(code);
    }
  });

  test("the wrong type, a packed body, a body over the limit", async () => {
    for (const type of [
      "text/plain",
      "multipart/form-data; boundary=x",
      "application/json; charset=utf-16",
    ]) {
      await expectRefusal(send(completions, '{"prompt": "a"}', { "content-type": type }), 415);
    }
    await expectRefusal(send(completions, '{"prompt": "a"}', { "content-encoding": "gzip" }), 415);
    const large = { prompt: secret.repeat(bodyLimit / 10) };
    for (const path of [completions, chat, embeddings, "/tokenize"]) {
      expect((await expectRefusal(send(path, large), 413)).code).toBe("body_too_large");
    }
  });
});

describe("fields", () => {
  const long = "x".repeat(20_000);
  test.each<[string, string, object, string | null]>([
    ["negative max_tokens", completions, { max_tokens: -1 }, "max_tokens"],
    ["huge max_tokens", completions, { max_tokens: 5_000_000 }, "max_tokens"],
    ["max_tokens beyond all numbers", completions, { max_tokens: 1e308 }, "max_tokens"],
    ["negative max_completion_tokens", chat, { max_completion_tokens: -5 }, "max_completion_tokens"],
    ["huge max_completion_tokens", chat, { max_completion_tokens: 1e9 }, "max_completion_tokens"],
    ["n of five million", completions, { n: 5_000_000 }, "n"],
    ["n of five million, streamed", chat, { n: 5_000_000, stream: true }, "n"],
    ["more answers than the server allows", completions, { prompt: ["a", "b", "c"], n: 8 }, "prompt"],
    ["best_of of five million", completions, { best_of: 5_000_000 }, "best_of"],
    ["top_logprobs of a billion", chat, { logprobs: true, top_logprobs: 1e9 }, "top_logprobs"],
    ["logprobs of a billion", completions, { logprobs: 1e9 }, "logprobs"],
    ["top_p of -1", completions, { top_p: -1 }, "top_p"],
    ["top_p as a text", chat, { top_p: long }, "top_p"],
    ["a temperature of -1", completions, { temperature: -1 }, "temperature"],
    ["min_tokens beyond max_tokens", completions, { min_tokens: 9, max_tokens: 3 }, "min_tokens"],
    ["ids beyond the vocabulary", completions, { prompt: [1, 2, 999_999] }, "prompt[2]"],
    ["negative ids", completions, { prompt: [[3], [-7]] }, "prompt[1][0]"],
    ["ids that are no integers", completions, { prompt: [1.5] }, "prompt[0]"],
    ["ids beyond the vocabulary to embed", embeddings, { input: [[4], [2 ** 40]] }, "input[1][0]"],
    ["nothing to embed", embeddings, { input: [] }, "input"],
    ["no prompt", completions, { prompt: null }, "prompt"],
    ["an empty list of prompts", completions, { prompt: [] }, "prompt"],
    ["a prompt that is an object", completions, { prompt: { text: secret } }, "prompt"],
    ["a prompt beyond the context", completions, { prompt: `${secret} `.repeat(1000) }, "prompt"],
    ["a conversation beyond the context", chat, { messages: [{ role: "user", content: long }] }, "messages"],
    ["an input beyond the context", embeddings, { input: long }, "input"],
    ["a bias beyond the vocabulary", completions, { logit_bias: { 999999: 1 } }, "logit_bias"],
    ["a bias for what is no id", chat, { logit_bias: { [long]: 1 } }, "logit_bias"],
    ["a bias of a thousand", completions, { logit_bias: { 5: 1000 } }, "logit_bias.5"],
    ["a stop token beyond the vocabulary", completions, { stop_token_ids: [400] }, "stop_token_ids[0]"],
    ["negative stop tokens", chat, { stop_token_ids: [3, -1] }, "stop_token_ids[1]"],
    ["six hundred stop tokens", chat, { stop_token_ids: new Array(600).fill(3) }, "stop_token_ids"],
    ["more answers than run at once", completions, { n: 9 }, "n"],
    ["a thousand stops", completions, { stop: new Array(1000).fill("a") }, "stop"],
    ["a stop of great length", completions, { stop: long }, "stop[0]"],
    ["a fractional seed", completions, { seed: 0.1 }, "seed"],
    ["an unknown role", chat, { messages: [{ role: secret, content: "a" }] }, "messages[0].role"],
    ["no messages", chat, { messages: [] }, "messages"],
    [
      "a picture",
      chat,
      { messages: [{ role: "user", content: [{ type: "image_url" }] }] },
      "messages[0].content[0]",
    ],
    ["a choice among no tools", chat, { tool_choice: "required" }, "tool_choice"],
    ["a template of the client's own", chat, { chat_template: "{{ range(999999999) }}" }, "chat_template"],
  ])("%s", async (_, path, fields, param) => {
    const error = await expectRefusal(send(path, { ...valid[path], ...fields }), 400);
    expect(error.param).toBe(param);
  });

  test("an unknown model, whatever its name", async () => {
    for (const model of ["gpt-4", "../../etc/passwd", long, "\u0000".repeat(3000), "😀".repeat(3000)]) {
      const error = await expectRefusal(send(chat, { model, messages }), 404);
      expect(error).toMatchObject({ param: "model", code: "model_not_found" });
    }
  });
});

describe("schemas and expressions", () => {
  const node = (next: object): object => ({ type: "object", properties: { next }, required: ["next"] });
  const keys = (count: number): [string, object][] =>
    Array.from({ length: count }, (_, index) => [`k${index}`, { type: "string" }]);
  const some = (row: number): object => ({
    anyOf: Array.from({ length: 8 }, (_, index) => ({
      properties: { [`k${row}x${index}`]: { type: "null" } },
    })),
  });
  const doubled: [string, object][] = Array.from({ length: 20 }, (_, level) => [
    `a${level + 1}`,
    { anyOf: [node({ $ref: `#/$defs/a${level}` }), { type: "array", items: { $ref: `#/$defs/a${level}` } }] },
  ]);

  const schemas: [string, object][] = [
    ["refers to itself", { $ref: "#" }],
    [
      "refers to itself in a circle",
      { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } } },
    ],
    ["is all of itself", { allOf: [{ $ref: "#" }, { type: "object" }] }],
    ["has no end", node({ $ref: "#" })],
    ["refers to nothing", { $ref: "#/$defs/absent" }],
    ["refers to a file", { $ref: "file:///etc/passwd" }],
    ["refers to another server", { $ref: "http://127.0.0.1:1/schema.json" }],
    ["is of an unknown type", { type: secret }],
    ["explodes in an expression", { type: "string", pattern: "(a|b)*a(a|b){25}" }],
    ["explodes in repetitions", { type: "string", pattern: "^((((a{99}){99}){99}){99})$" }],
    ["has an expression that is none", { type: "string", pattern: "(((" }],
    ["looks back", { type: "string", pattern: "^(a+)\\1$" }],
    ["asks for a billion items", { type: "array", items: {}, minItems: 1e9 }],
    ["asks for a billion characters", { type: "string", minLength: 1e9 }],
    ["asks for what cannot be", { type: "integer", minimum: 5, maximum: 3 }],
  ];
  const explosive: [string, object][] = [
    [
      "doubles at every level",
      { $ref: "#/$defs/a20", $defs: { a0: { type: "null" }, ...Object.fromEntries(doubled) } },
    ],
    [
      "combines every case with every other",
      { type: "object", allOf: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(some) },
    ],
    ["has two thousand keys", { type: "object", properties: Object.fromEntries(keys(2000)) }],
    ["has four thousand texts to choose among", { enum: keys(4000).map(([name]) => `${secret} ${name}`) }],
    ["asks for many of many", { type: "array", minItems: 900, items: { type: "array", minItems: 900 } }],
    [
      "has keys of a hundred expressions",
      {
        type: "object",
        patternProperties: Object.fromEntries(keys(100).map(([name, schema]) => [`^.*${name}.{8}$`, schema])),
      },
    ],
  ];

  test.each(schemas)("a schema that %s", async (_, schema) => {
    const format = { type: "json_schema", json_schema: { name: "s", schema } };
    const error = await expectRefusal(send(chat, { messages, response_format: format, max_tokens: 4 }), 400);
    expect(error.param).toBe("response_format");
  });

  test.each(explosive)(
    "a schema that %s is refused or answered, and takes nobody else's time",
    async (_, schema) => {
      const format = { type: "json_schema", json_schema: { name: "s", schema } };
      const body = { messages, response_format: format, max_tokens: 4 };
      const [response, text] = await Promise.all([send(chat, body), askDecently()]);
      const answer = await response.text();
      expect([200, 400], answer.slice(0, 300)).toContain(response.status);
      if (response.status === 400) expect(Buffer.byteLength(answer)).toBeLessThanOrEqual(1024);
      expect(text).toBe(decent);
      expect(await server.health()).toBe(200);
    },
  );

  test.each([
    "(a|b)*a(a|b){25}",
    "(((a{1,99}){1,99}){1,99}){1,99}",
    "(a",
    "a{5,2}",
    "\\p{Nope}",
    "(?=a)b",
    "[z-a]",
  ])("the expression %s", async (regex) => {
    await expectRefusal(
      send(completions, { prompt: "a", structured_outputs: { regex }, max_tokens: 4 }),
      400,
    );
  });

  test("a tool whose arguments have no end", async () => {
    const tools = [{ type: "function", function: { name: "f", parameters: node({ $ref: "#" }) } }];
    await expectRefusal(send(chat, { messages, tools, tool_choice: "required", max_tokens: 4 }), 400);
  });
});

/** Sends bytes as they are and gives what comes back until the connection closes. */
function exchange(...pieces: (string | Buffer)[]): Promise<string> {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve) => {
    const received: Buffer[] = [];
    const socket = connect(Number(port), hostname, () => pieces.forEach((piece) => void socket.write(piece)));
    socket.on("data", (piece) => received.push(piece));
    // Cut while something was still being sent to it.
    socket.on("error", () => {});
    socket.on("close", () => resolve(Buffer.concat(received).toString()));
  });
}

describe("connections", () => {
  test("paths that climb out name nothing", async () => {
    for (const path of [
      ...["/../../etc/passwd", "/v1/../../../etc/passwd", "/v1/models/../../../../etc/passwd"],
      ...[
        "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/v1//completions",
        "/static/..%5c..%5cx",
        `/${"a/".repeat(3000)}`,
      ],
      "/v1/models/%ff%fe",
    ]) {
      const head = `GET ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${key}\r\nconnection: close\r\n\r\n`;
      const answer = await exchange(head);
      expect(answer, path).toMatch(/^HTTP\/1\.1 (400|404) /);
      expect(answer).not.toContain("root:");
      expect(Buffer.byteLength(answer.split("\r\n\r\n")[1]!)).toBeLessThanOrEqual(1024);
      expect(JSON.parse(answer.split("\r\n\r\n")[1]!).error.type).toBe("invalid_request_error");
    }
    expect(await server.health()).toBe(200);
  });

  test("what is not HTTP, and headers without end", async () => {
    expect(await exchange("\u0016\u0003\u0001 hello\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect(await exchange("BREW /coffee HTTP/1.1\r\nhost: x\r\n\r\n")).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(await exchange(`GET / HTTP/1.1\r\nx: ${"y".repeat(40_000)}\r\n\r\n`)).toMatch(/^HTTP\/1\.1 431 /);
    const chunked = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    const headers = `${chunked}authorization: Bearer ${key}\r\nconnection: close\r\n`;
    expect(await exchange(`${headers}transfer-encoding: chunked\r\n\r\nzz\r\n`)).toMatch(/^HTTP\/1\.1 400 /);
    const both = `${headers}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n`;
    expect(await exchange(both)).toMatch(/^HTTP\/1\.1 400 /);
    expect(await exchange(`${headers}content-length: 999999999\r\n\r\n`)).toMatch(/^HTTP\/1\.1 413 /);
    const piece = `2000\r\n${"a".repeat(0x2000)}\r\n`;
    expect(
      await exchange(
        `${headers}transfer-encoding: chunked\r\n\r\n`,
        ...new Array(bodyLimit / 0x2000 + 1).fill(piece),
      ),
    ).toMatch(/^HTTP\/1\.1 413 /);
    expect(await server.health()).toBe(200);
  });

  test("the wrong key or none, before anything of the request is looked at", async () => {
    const cases: Record<string, string>[] = [
      {},
      { authorization: "Bearer " },
      { authorization: `Bearer ${key}x` },
      { authorization: `Bearer ${key.slice(0, -1)}` },
      { authorization: `Basic ${key}` },
      { authorization: key },
      { authorization: `Bearer ${"x".repeat(8000)}` },
    ];
    for (const headers of cases) {
      for (const path of [completions, chat, embeddings, "/tokenize", "/detokenize"]) {
        const error = await expectRefusal(server.post(path, "{", { headers }), 401);
        expect(error.code).toBe("invalid_api_key");
      }
      await expectRefusal(fetch(`${server.url}/v1/models`, { headers }), 401);
    }
  });

  test("methods and paths that are not there", async () => {
    for (const [method, path, status] of [
      ["GET", completions, 405],
      ["DELETE", "/v1/models", 405],
      ["POST", "/health", 405],
      ["GET", "/", 404],
      ["POST", "/v1/files", 404],
    ] as const) {
      const headers = { authorization: `Bearer ${key}` };
      await expectRefusal(fetch(server.url + path, { method, headers }), status);
    }
  });
});

test("after all of it a decent request is answered as before, and no log tells what was in a prompt", async () => {
  expect(await askDecently()).toBe(decent);
  await server.idle();
  const { status, errors } = await server.stop();
  expect(status).toBe(0);
  const lines = errors.trimEnd().split("\n");
  expect(lines.length).toBeGreaterThan(100);
  for (const line of lines) {
    const { level } = JSON.parse(line) as { level: string };
    // Nothing was the server's own fault.
    expect(level, line).toBe("info");
    expect(line).not.toContain(secret);
    expect(line).not.toContain(key);
    expect(line).not.toMatch(/\.ts:\d+/);
    expect(line.length).toBeLessThan(2000);
  }
});

describe("GGUF files that are broken", () => {
  let whole: Buffer;

  beforeAll(async () => {
    const converted = await place.run(["convert", place.trained, "whole.gguf"]);
    expect(converted).toMatchObject({ status: 0 });
    whole = readFileSync(place.path("whole.gguf"));
  });

  /** What `serve` says of a file; it must end by itself. */
  async function failure(name: string): Promise<string> {
    const { status, output, errors } = await place.run(["serve", name, "--port", "0"]);
    expect({ status, output }, errors).toEqual({ status: 1, output: "" });
    expect(errors).not.toMatch(/^ {4}at |node:|\.ts:|internal/m);
    expect(errors.length).toBeLessThan(1500);
    return errors;
  }

  /** The file, changed in place. */
  function changed(change: (bytes: Buffer) => void): string {
    const bytes = Buffer.from(whole);
    change(bytes);
    writeFileSync(place.path("broken.gguf"), bytes);
    return "broken.gguf";
  }

  /** A header of one tensor of 256 numbers, of a type with this number. */
  function oneTensor(type: number): Buffer {
    const name = Buffer.from("token_embd.weight");
    const header = Buffer.alloc(24 + 8 + name.length + 4 + 8 + 4 + 8);
    header.write("GGUF", 0);
    header.writeUInt32LE(3, 4);
    header.writeBigUInt64LE(1n, 8);
    let at = header.writeBigUInt64LE(0n, 16);
    at = header.writeBigUInt64LE(BigInt(name.length), at);
    at += name.copy(header, at);
    at = header.writeUInt32LE(1, at);
    at = header.writeBigUInt64LE(256n, at);
    at = header.writeUInt32LE(type, at);
    header.writeBigUInt64LE(0n, at);
    return Buffer.concat([header, Buffer.alloc(4096)]);
  }

  test("whole, it is served as the folder is", async () => {
    const own = await place.serve(["--log-level", "none"], { model: "whole.gguf" });
    const body = { prompt: prompts[0], max_tokens: 24, temperature: 0 };
    expect((await own.answer(completions, body)).choices[0]!.text).toBe(decent);
    await own.stop();
  });

  test("a wrong magic, and a version of another time", async () => {
    expect(await failure(changed((bytes) => bytes.write("GGML", 0)))).toContain("not in GGUF format");
    expect(await failure(changed((bytes) => bytes.writeUInt32LE(99, 4)))).toContain("version");
  });

  test("lengths past the end", async () => {
    // How many tensors, how many entries, and the length of the first entry's name.
    for (const at of [8, 16, 24]) {
      for (const length of [2n ** 64n - 1n, 2n ** 40n]) {
        const said = await failure(changed((bytes) => bytes.writeBigUInt64LE(length, at)));
        expect(said).toMatch(/GGUF file/);
      }
    }
  });

  test("a file that was cut off, anywhere", async () => {
    for (const size of [0, 30, 700, statSync(place.path("whole.gguf")).size - 100]) {
      const name = changed(() => {});
      truncateSync(place.path(name), size);
      expect(await failure(name)).toMatch(/GGUF/);
    }
  });

  test("a quantization that is not known is named", async () => {
    for (const [type, name] of [
      [10, "Q2_K"],
      [16, "IQ2_XXS"],
      [250, "250"],
    ] as const) {
      writeFileSync(place.path("other.gguf"), oneTensor(type));
      expect(await failure("other.gguf")).toContain(name);
    }
  });
});
