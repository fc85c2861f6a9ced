import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { createParser } from "./event_stream.ts";
import { runLoad } from "./run_load.ts";
import { percentiles, summarize } from "./summary.ts";
import { evenLengths, planWorkload } from "./workload.ts";

const servers: ReturnType<typeof createServer>[] = [];

async function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

test("events are found however the stream is cut", () => {
  const stream = ': hello\r\ndata: {"a":1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata: [DONE]\n\n';
  for (let size = 1; size <= stream.length; size++) {
    const found: string[] = [];
    const parse = createParser((data) => found.push(data));
    for (let start = 0; start < stream.length; start += size) parse(stream.slice(start, start + size));
    expect(found).toEqual(['{"a":1}', "two\nlines", "[DONE]"]);
  }
});

test("percentiles are nearest ranks", () => {
  expect(percentiles(Array.from({ length: 200 }, (_, index) => 200 - index))).toEqual({
    p50: 100,
    p95: 190,
    p99: 198,
  });
  expect(percentiles([])).toBeUndefined();
});

test("arrivals are a Poisson process of the rate, the same for a seed", () => {
  const options = {
    lengths: [{ prompt: 3, output: 2 }],
    requests: 4000,
    rate: 5,
    seed: 7,
    vocabulary: 100,
    firstToken: 10,
  };
  const workload = planWorkload(options);
  expect(planWorkload(options)).toEqual(workload);
  const gaps = workload.map(({ arrival }, index) => arrival - (workload[index - 1]?.arrival ?? 0));
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  // Exponential gaps have a mean and a standard deviation of 1 / rate; 4000 of them within 5%.
  expect(Math.abs(mean * 5 - 1)).toBeLessThan(0.05);
  const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
  expect(Math.abs(Math.sqrt(variance) * 5 - 1)).toBeLessThan(0.06);
  const ids = workload.flatMap(({ prompt }) => prompt);
  expect([Math.min(...ids), Math.max(...ids)]).toEqual([10, 99]);
  const lengths = evenLengths(5000, [32, 512], [16, 128], 1);
  expect(Math.min(...lengths.map(({ prompt }) => prompt))).toBe(32);
  expect(Math.max(...lengths.map(({ output }) => output))).toBe(128);
});

test("a load is sent on time and its answers are counted", async () => {
  const asked: { prompt: number[]; max_tokens: number }[] = [];
  const url = await listen((request, response) => {
    let body = "";
    request.on("data", (piece: Buffer) => {
      body += piece.toString();
    });
    request.on("end", () => {
      const parsed = JSON.parse(body) as { prompt: number[]; max_tokens: number };
      asked.push(parsed);
      if (parsed.max_tokens === 13) {
        response.writeHead(503).end("{}");
        return;
      }
      response.writeHead(200, { "content-type": "text/event-stream" });
      // Two tokens come in one piece: the server's own count holds.
      for (let token = 0; token < parsed.max_tokens - 1; token++)
        response.write(`data: ${JSON.stringify({ choices: [{ text: "x" }] })}\n\n`);
      const usage = { prompt_tokens: parsed.prompt.length, completion_tokens: parsed.max_tokens };
      response.end(`data: ${JSON.stringify({ choices: [], usage })}\n\ndata: [DONE]\n\n`);
    });
  });
  const timelines = await runLoad({ url, model: "m" }, [
    { arrival: 0, prompt: [1, 2], output: 5 },
    { arrival: 0.05, prompt: [3], output: 13 },
    { arrival: 0.1, prompt: [4, 5, 6], output: 3 },
  ]);
  expect(asked.map(({ prompt }) => prompt)).toEqual([[1, 2], [3], [4, 5, 6]]);
  expect(timelines.map(({ tokens, pieces }) => [tokens, pieces.length])).toEqual([
    [5, 4],
    [0, 0],
    [3, 2],
  ]);
  expect(timelines[2]!.sent - timelines[0]!.sent).toBeGreaterThan(0.09);
  const summary = summarize(timelines, { firstToken: 60, perToken: 60 });
  expect(summary).toMatchObject({
    requests: 3,
    failed: 1,
    failures: ["1 x HTTP 503"],
    promptTokens: 5,
    outputTokens: 8,
    good: 2,
  });
});

test("only requests within the target are good", () => {
  const timeline = (first: number, gap: number, failure?: string) => ({
    sent: 10,
    pieces: [10 + first, 10 + first + gap, 10 + first + 2 * gap],
    ended: 11,
    tokens: 3,
    promptTokens: 1,
    ...(failure === undefined ? {} : { failure }),
  });
  const summary = summarize(
    [timeline(0.1, 0.1), timeline(0.3, 0.1), timeline(0.1, 0.3), timeline(0.1, 0.1, "cut")],
    { firstToken: 0.2, perToken: 0.2 },
  );
  expect(summary.good).toBe(1);
  expect(summary.goodput).toBeCloseTo(1);
  expect(summary.perToken?.p50).toBeCloseTo(0.1);
  expect(summary.gap?.p99).toBeCloseTo(0.3);
});
