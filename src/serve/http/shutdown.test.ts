import { expect, test } from "vitest";
import { eventually, readEvents, startServer } from "../../../test/support/http_server.ts";

const slow = { stepMilliseconds: 5, answer: () => "x".repeat(60) };
const long = { prompt: "a", max_tokens: 100 };

test("what runs may finish; what comes is refused; then the port is closed", async () => {
  const { post, get, server, engine, url } = await startServer(slow);
  const whole = post("/v1/completions", long);
  const streamed = post("/v1/completions", { ...long, stream: true });
  await eventually(() => engine.statistics.running === 2);
  const closed = server.close({ timeoutSeconds: 10 });
  const health = await get("/health");
  expect([health.status, await health.json()]).toEqual([503, { status: "draining" }]);
  const refused = await post("/v1/completions", long);
  expect(refused.status).toBe(503);
  expect(refused.headers.get("retry-after")).toBe("1");
  expect(refused.headers.get("connection")).toBe("close");
  expect((await refused.json()).error.code).toBe("not_ready");
  expect((await (await whole).json()).choices[0]!.text).toBe("x".repeat(60));
  expect((await readEvents(await streamed)).at(-1)).toBe("[DONE]");
  await closed;
  await expect(fetch(`${url}/health`)).rejects.toThrow();
});

test("what does not finish in time is cut, and says so", async () => {
  const { post, server, engine } = await startServer({ ...slow, answer: () => "x".repeat(900) });
  const whole = post("/v1/completions", { ...long, max_tokens: 900 });
  const streamed = post("/v1/completions", { ...long, max_tokens: 900, stream: true });
  await eventually(() => engine.statistics.running === 2);
  await server.close({ timeoutSeconds: 0.05 });
  const answer = await whole;
  expect(answer.status).toBe(503);
  expect((await answer.json()).error.code).toBe("aborted");
  const events = await readEvents(await streamed);
  expect(events.at(-1)).toMatchObject({ error: { code: "aborted", type: "server_error" } });
  expect(engine.statistics.running).toBe(0);
});

test("closing twice is closing once, and an idle connection holds nothing up", async () => {
  const { get, server, url, logged } = await startServer();
  await (await get("/health")).text();
  await Promise.all([server.close(), server.close()]);
  expect(logged.filter((line) => line.message === "draining")).toHaveLength(1);
  await expect(fetch(`${url}/health`)).rejects.toThrow();
});
