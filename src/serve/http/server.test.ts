import { expect, test } from "vitest";
import { FakeEngine } from "../../../test/support/fake_engine.ts";
import { eventually, exchangeRaw, startServer } from "../../../test/support/http_server.ts";
import { ApiServer } from "./index.ts";
import { createLogger } from "./log.ts";

const quiet = { port: 0, logLevel: "none" } as const;

test("the port answers while the model loads, and health tells when it is ready", async () => {
  const server = await ApiServer.listen(quiet);
  try {
    expect(server.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    const loading = await fetch(`${server.url}/health`);
    expect(loading.status).toBe(503);
    expect(await loading.json()).toEqual({ status: "loading" });
    const refused = await fetch(`${server.url}/v1/models`);
    expect(refused.status).toBe(503);
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await refused.json()).toMatchObject({ error: { code: "not_ready" } });
    expect(await (await fetch(`${server.url}/metrics`)).text()).toContain("process_cpu_seconds_total");
    server.attach(new FakeEngine());
    expect(await (await fetch(`${server.url}/health`)).json()).toEqual({ status: "ok" });
    expect((await fetch(`${server.url}/v1/models`)).status).toBe(200);
  } finally {
    await server.close();
  }
});

test("a dead engine makes the server unhealthy, and requests are refused", async () => {
  const { engine, get, post } = await startServer();
  engine.health = { state: "dead", reason: "three steps failed" };
  const health = await get("/health");
  expect(health.status).toBe(503);
  expect(await health.json()).toEqual({ status: "dead", reason: "three steps failed" });
  const refused = await post("/v1/completions", { prompt: "a" });
  expect(refused.status).toBe(503);
  expect((await refused.json()).error).toMatchObject({ code: "engine_dead", type: "server_error" });
});

test("models: all names, one name with a slash in it, and the names in answers", async () => {
  const { get, post } = await startServer({}, { modelNames: ["org/model", "alias"] });
  const list = await (await get("/v1/models")).json();
  const model = {
    id: "org/model",
    object: "model",
    created: expect.any(Number),
    owned_by: "slipstream",
    root: "fake",
    parent: null,
    max_model_len: 1024,
  };
  expect(list).toEqual({ object: "list", data: [model, { ...model, id: "alias" }] });
  expect(await (await get("/v1/models/org/model")).json()).toEqual(model);
  expect(await (await get("/v1/models/org%2Fmodel?x=1")).json()).toEqual(model);
  expect((await get("/v1/models/other")).status).toBe(404);
  expect((await (await post("/v1/completions", { prompt: "a", model: "alias" })).json()).model).toBe("alias");
  expect((await (await post("/v1/completions", { prompt: "a" })).json()).model).toBe("org/model");
  expect((await post("/v1/completions", { prompt: "a", model: "fake" })).status).toBe(404);
});

test("health, metrics and version are open where everything else asks for a key", async () => {
  const { get } = await startServer({}, { apiKeys: ["k"], version: "1.2.3" });
  expect((await get("/health")).status).toBe(200);
  expect((await get("/metrics")).status).toBe(200);
  expect(await (await get("/version")).json()).toEqual({ version: "1.2.3" });
  expect((await get("/v1/models")).status).toBe(401);
  expect((await get("/v1/models", { authorization: "bearer k" })).status).toBe(200);
});

test("waiting requests take turns by key and user", async () => {
  const { post, engine } = await startServer({}, { apiKeys: ["a", "b"] });
  await post("/v1/completions", { prompt: "x" }, { authorization: "Bearer b" });
  await post("/v1/completions", { prompt: "x", user: "ann" }, { authorization: "Bearer a" });
  expect(engine.requests.map((request) => request.tenant)).toEqual(["1", "0/ann"]);
});

test("request ids: the client's where it is sane, otherwise one of ours", async () => {
  const { get, url } = await startServer();
  expect((await get("/health", { "x-request-id": "trace-1.a:b_c" })).headers.get("x-request-id")).toBe(
    "trace-1.a:b_c",
  );
  for (const id of ["a b", "x".repeat(129), "<script>"]) {
    const answered = (await get("/health", { "x-request-id": id })).headers.get("x-request-id");
    expect(answered).toMatch(/^[\da-f-]{36}$/);
  }
  const raw = await exchangeRaw(
    url,
    "GET /health HTTP/1.1\r\nhost: x\r\nx-request-id: a\tb\r\nconnection: close\r\n\r\n",
  );
  expect(raw).toMatch(/x-request-id: [\da-f-]{36}\r\n/);
});

test("the log tells of each request, and nothing of what was said", async () => {
  const { post, logged } = await startServer({ answer: () => "SECRET-ANSWER" }, { apiKeys: ["SECRET-KEY"] });
  const headers = { authorization: "Bearer SECRET-KEY", "x-request-id": "id-1" };
  await (await post("/v1/completions?SECRET-QUERY", { prompt: "SECRET-PROMPT" }, headers)).text();
  await (await post("/v1/completions", '{"prompt": "SECRET-PROMPT", ]', headers)).text();
  await (await post("/v1/completions", { prompt: "SECRET-PROMPT", model: "SECRET-MODEL" }, headers)).text();
  await (await post("/SECRET-PATH", {}, headers)).text();
  await eventually(() => logged.filter((line) => line.message === "request").length === 4);
  expect(logged[0]).toEqual({
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    level: "info",
    message: "request",
    request_id: "id-1",
    method: "POST",
    route: "/v1/completions",
    status: 200,
    seconds: expect.any(Number),
    prompt_tokens: 14,
    answer_tokens: 14,
  });
  expect(logged.map((line) => line.status)).toEqual([200, 400, 404, 404]);
  expect(JSON.stringify(logged)).not.toContain("SECRET");
});

test("log levels", () => {
  const lines: string[] = [];
  const log = createLogger("warning", (line) => lines.push(line));
  log.debug("a");
  log.info("b");
  log.warning("c", { field: 1, absent: undefined });
  log.error("d");
  const parsed = lines.map((line) => JSON.parse(line));
  expect(parsed.map(({ time: _, ...rest }) => rest)).toEqual([
    { level: "warning", message: "c", field: 1 },
    { level: "error", message: "d" },
  ]);
});

test("other pages may read answers only where they are allowed to", async () => {
  const preflight = (url: string) =>
    fetch(`${url}/v1/completions`, {
      method: "OPTIONS",
      headers: { origin: "https://a.example", "access-control-request-method": "POST" },
    });
  const closed = await startServer();
  expect((await preflight(closed.url)).status).toBe(405);
  const plain = await closed.get("/health", { origin: "https://a.example" });
  expect(plain.headers.has("access-control-allow-origin")).toBe(false);

  const open = await startServer({}, { corsOrigins: ["https://a.example"], apiKeys: ["k"] });
  const allowed = await preflight(open.url);
  expect(allowed.status).toBe(204);
  expect(allowed.headers.get("access-control-allow-origin")).toBe("https://a.example");
  expect(allowed.headers.get("access-control-allow-headers")).toContain("authorization");
  const answered = await open.get("/v1/models", { origin: "https://a.example" });
  expect(answered.status).toBe(401);
  expect(answered.headers.get("access-control-allow-origin")).toBe("https://a.example");
  const other = await open.get("/health", { origin: "https://b.example" });
  expect(other.headers.has("access-control-allow-origin")).toBe(false);

  const any = await startServer({}, { corsOrigins: ["*"] });
  const everywhere = await any.get("/health", { origin: "https://b.example" });
  expect(everywhere.headers.get("access-control-allow-origin")).toBe("*");
});

test("a port that is taken, and a host that is not here", async () => {
  const { url } = await startServer();
  const port = Number(new URL(url).port);
  await expect(ApiServer.listen({ ...quiet, port })).rejects.toMatchObject({
    code: "port_in_use",
    message: expect.stringContaining(`127.0.0.1:${port}`),
  });
  await expect(ApiServer.listen({ ...quiet, host: "192.0.2.1" })).rejects.toMatchObject({ code: "bad_host" });
});

test("an address that others reach, without a key, is warned about", async () => {
  const warnings = async (host: string, apiKeys: string[]): Promise<number> => {
    const lines: string[] = [];
    const logger = createLogger("warning", (line) => lines.push(line));
    const server = await ApiServer.listen({ port: 0, host, apiKeys, logger });
    await server.close();
    return lines.filter((line) => line.includes("set an API key")).length;
  };
  expect(await warnings("0.0.0.0", [])).toBe(1);
  expect(await warnings("0.0.0.0", ["k"])).toBe(0);
  expect(await warnings("127.0.0.1", [])).toBe(0);
});

test("a connection serves one request after another, also refused ones", async () => {
  const { url } = await startServer();
  const get = (path: string, last = false) =>
    `GET ${path} HTTP/1.1\r\nhost: x\r\n${last ? "connection: close\r\n" : ""}\r\n`;
  const answers = await exchangeRaw(url, get("/health") + get("/nowhere") + get("/v1/models", true));
  expect(answers.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 404", "HTTP/1.1 200"]);
});
