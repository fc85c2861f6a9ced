/** `slipstream serve` as a process: what it prints, how it starts, stops and fails. */
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Running, Workplace } from "./support.ts";

const place = new Workplace();
const running: Running[] = [];

beforeAll(async () => {
  await place.train([place.config({ max_steps: 2, output_dir: "base" })]);
});
afterEach(() => {
  for (const { child } of running.splice(0)) child.kill("SIGKILL");
});
afterAll(() => {
  place[Symbol.dispose]();
});

/** A server on the trained model that is ready, and its URL. */
async function start(
  parameters: readonly string[] = [],
  environment: NodeJS.ProcessEnv = {},
): Promise<Running & { url: string }> {
  const command = ["serve", "base/model", "--port", "0", ...parameters];
  const server = place.start(command, { SLIPSTREAM_API_KEY: "", ...environment });
  running.push(server);
  let output = "";
  server.child.stdout!.on("data", (piece) => {
    output += piece;
  });
  await server.seen(/serving .*\n/);
  const line = /^serving model at (http:\/\/127\.0\.0\.1:\d+)\n$/.exec(output);
  expect(line, output).not.toBeNull();
  return { ...server, url: line![1]! };
}

function ask(url: string, body: object, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

test("what it serves is what `generate` says, and SIGTERM ends it with 0", async () => {
  const { url, child, done } = await start(["--log-level", "none"]);
  const prompt = "The whale swims past the";
  const served = await ask(url, { prompt, max_tokens: 12, temperature: 0, seed: 1 });
  const { choices } = (await served.json()) as { choices: { text: string }[] };
  const line = [
    "generate",
    "base/model",
    "--prompt",
    prompt,
    "--max-tokens",
    "12",
    "--temperature",
    "0",
    "--json",
  ];
  const generated = JSON.parse((await place.run(line)).output) as { text: string };
  expect(choices[0]!.text).toBe(generated.text);
  expect(choices[0]!.text.length).toBeGreaterThan(5);
  expect((await fetch(`${url}/health`)).status).toBe(200);
  child.kill("SIGTERM");
  expect(await done).toMatchObject({ status: 0, errors: "" });
});

test("SIGTERM under load: what runs is finished or cut, new requests are refused, and it ends with 0", async () => {
  // Steps of 40 ms: an answer takes two seconds, and the server has half of one.
  const { url, child, done, seen } = await start(["--shutdown-timeout", "0.5"], {
    SLIPSTREAM_SERVE_STEP_DELAY: "40",
  });
  const body = { prompt: "The otter", ignore_eos: true };
  const short = ask(url, { ...body, max_tokens: 2 });
  const long = ask(url, { ...body, max_tokens: 50, stream: true });
  expect((await long).status).toBe(200);
  child.kill("SIGTERM");
  await seen(/"draining"/);
  const refused = await ask(url, { ...body, max_tokens: 2 });
  expect(refused.status).toBe(503);
  expect(refused.headers.get("retry-after")).toBe("1");
  expect((await fetch(`${url}/health`)).status).toBe(503);
  expect((await short).status).toBe(200);
  const text = await (await long).text();
  expect(text).toMatch(/^data: \{"id"/);
  expect(text).toContain('"code":"aborted"');
  expect(text).not.toContain("[DONE]");
  expect((await done).status).toBe(0);
});

test("Ctrl-C twice does not wait", async () => {
  const { url, child, done, seen } = await start([], { SLIPSTREAM_SERVE_STEP_DELAY: "1000" });
  const answer = ask(url, { prompt: "The heron", max_tokens: 40, ignore_eos: true }).catch(() => undefined);
  const metrics = async (): Promise<string> => (await fetch(`${url}/metrics`)).text();
  while (!/^vllm:num_requests_running\{.*\} 1$/m.test(await metrics()));
  child.kill("SIGINT");
  await seen(/"draining"/);
  child.kill("SIGINT");
  expect((await done).status).toBe(1);
  await answer;
});

test("a key from the environment is required", async () => {
  const { url } = await start([], { SLIPSTREAM_API_KEY: "sk-test" });
  const body = { prompt: "The mole", max_tokens: 1 };
  expect((await ask(url, body)).status).toBe(401);
  expect((await ask(url, body, { authorization: "Bearer sk-test" })).status).toBe(200);
});

test("a port that is taken, a model that is not there, and options that make no sense", async () => {
  const { url } = await start();
  const taken = await place.run(["serve", "base/model", "--port", new URL(url).port]);
  expect(taken).toMatchObject({ status: 1, output: "" });
  expect(taken.errors).toContain("another program listens there already");
  expect(taken.errors).toContain("choose another --port");

  const absent = await place.run(["serve", "no/model", "--port", "0"]);
  expect(absent).toMatchObject({ status: 1, output: "" });
  expect(absent.errors).toContain("config.json");

  for (const [parameters, message] of [
    [["--port", "99999"], "Expected an integer, from 0 to 65535."],
    [["--host", "192.0.2.1"], "cannot listen there"],
    [["--chat-template", "absent.jinja"], "the chat template cannot be read"],
    [["--api-key-file", "absent.txt"], "the file of API keys cannot be read"],
    [["--max-context", "1000000"], "maximumContext cannot be used"],
    [["--max-sequnces", "4"], "--max-sequences"],
  ] as const) {
    const refused = await place.run(["serve", "base/model", "--port", "0", ...parameters]);
    expect(refused, parameters.join(" ")).toMatchObject({ status: 2, output: "" });
    expect(refused.errors).toContain(message);
    expect(refused.errors).not.toMatch(/^ {4}at /m);
  }
});

test("a forward pass that throws ends its request, and the next one is answered", async () => {
  const { url } = await start([], { SLIPSTREAM_SERVE_FAIL_STEP: "10" });
  const body = { prompt: "The lynx", ignore_eos: true };
  const failed = await ask(url, { ...body, max_tokens: 20 });
  expect(failed.status).toBe(500);
  expect(await failed.json()).toMatchObject({ error: { type: "server_error", code: "engine_error" } });
  expect((await fetch(`${url}/health`)).status).toBe(200);
  expect((await ask(url, { ...body, max_tokens: 2 })).status).toBe(200);
});

test("an engine that only fails is told as dead", async () => {
  const { url } = await start([], { SLIPSTREAM_SERVE_FAIL_STEP: "1" });
  const body = { prompt: "The lynx", max_tokens: 2 };
  for (let request = 0; request < 3; request++) expect((await ask(url, body)).status).toBe(500);
  const health = await fetch(`${url}/health`);
  expect([health.status, await health.json()]).toMatchObject([503, { status: "dead" }]);
  const refused = await ask(url, body);
  expect([refused.status, await refused.json()]).toMatchObject([503, { error: { code: "engine_dead" } }]);
});
