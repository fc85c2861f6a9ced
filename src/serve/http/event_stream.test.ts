import { connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import { eventually, startServer, type TestServer } from "../../../test/support/http_server.ts";

/** A client that asks for long answers and reads only when it is told to. */
async function askSlowly(
  server: TestServer,
  tokens: number,
  fields: object = { stream: true },
): Promise<Socket> {
  const { hostname, port } = new URL(server.url);
  const body = JSON.stringify({ prompt: "a", max_tokens: tokens, n: 64, ...fields });
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  socket.pause();
  socket.write(
    "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n" +
      `content-length: ${body.length}\r\n\r\n${body}`,
  );
  await eventually(() => server.engine.requests.length === 1);
  return socket;
}

const longAnswer = { answer: () => "x".repeat(4000), maximumContext: 10_000 };

test("a client that reads nothing is cut off, and what ran for it ends", async () => {
  const server = await startServer(longAnswer, { timeouts: { stall: 150 } });
  const socket = await askSlowly(server, 4000);
  const { signal } = server.engine.requests[0]!;
  await eventually(() => signal!.aborted);
  expect(server.engine.statistics.running).toBe(0);
  await eventually(() => server.logged.some((line) => line.message === "request" && line.status === 499));
  // 64 answers of 4000 tokens and about 150 bytes an event are 38 MB; the rest was never made.
  const told = server.logged.find((line) => line.status === 499)!;
  expect(told.answer_tokens as number).toBeLessThan(64 * 4000);
  expect((await server.get("/health")).status).toBe(200);
  socket.destroy();
});

test("a client that does not read a whole answer is cut off too", async () => {
  const server = await startServer(
    { ...longAnswer, answer: () => "x".repeat(400) },
    { timeouts: { stall: 150 } },
  );
  // 64 answers of 400 tokens with 20 rivals of about 20 bytes are 10 MB: more than connections hold.
  const socket = await askSlowly(server, 400, { logprobs: 20 });
  await eventually(() => server.logged.some((line) => line.message === "request" && line.status === 499));
  expect(server.engine.statistics.running).toBe(0);
  expect((await server.get("/health")).status).toBe(200);
  socket.destroy();
});

test("what waits for a slow client stays within its bound, and all of it arrives in the end", async () => {
  const server = await startServer({ ...longAnswer, answer: () => "x".repeat(600) });
  const before = process.memoryUsage().rss;
  const socket = await askSlowly(server, 600);
  await eventually(() => server.engine.statistics.running === 0);
  // The fake engine made 64 * 600 events of about 150 bytes; they wait as pieces, not as text.
  expect(process.memoryUsage().rss - before).toBeLessThan(200 * 2 ** 20);
  let text = "";
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.resume();
  await new Promise((resolve) => socket.on("close", resolve));
  expect(text.match(/"text":"x"/g)).toHaveLength(64 * 600);
  expect(text).toContain("data: [DONE]\n\n");
});

test("what one step gives to one request leaves in one write", async () => {
  const server = await startServer({ answer: () => "abc" });
  const response = await server.post("/v1/completions", { prompt: "a", n: 8, stream: true, max_tokens: 3 });
  const pieces: string[] = [];
  const decoder = new TextDecoder();
  for await (const piece of response.body!) pieces.push(decoder.decode(piece));
  // The end comes with the last step. A network may merge writes, and never splits ones as small as these.
  expect(pieces.length).toBeLessThanOrEqual(4);
  expect(pieces.join("").match(/data: /g)).toHaveLength(8 * 3 + 1);
  for (const piece of pieces) expect(piece.endsWith("\n\n")).toBe(true);
});

test("a client that leaves ends what ran for it", async () => {
  const server = await startServer({ answer: () => "x".repeat(900), stepMilliseconds: 2 });
  for (const stream of [true, false]) {
    const gone = new AbortController();
    const response = fetch(`${server.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a", max_tokens: 900, stream, n: 3 }),
      signal: gone.signal,
    }).catch(() => undefined);
    await eventually(() => server.engine.statistics.running === 1);
    if (stream) await response;
    gone.abort();
    await eventually(() => server.engine.statistics.running === 0);
    await response;
  }
  await eventually(() => server.logged.filter((line) => line.status === 499).length === 2);
  expect(server.logged.filter((line) => line.level === "error")).toEqual([]);
});
