/** What a server does under load and when things break: requests end, blocks come back, it never hangs. */
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Completion, eventually, type LiveServer, prompts, ServingPlace } from "./support.ts";

let place: ServingPlace;

beforeAll(async () => {
  place = await ServingPlace.create();
});
afterAll(() => place.close());

const path = "/v1/completions";
const prompt = prompts[0]!;

/** A greedy request that goes on for so many tokens. */
function ask(maxTokens: number, more: object = {}): object {
  return { prompt, max_tokens: maxTokens, temperature: 0, ignore_eos: true, ...more };
}

/** What came over a stream: its text, its last event, and whether it was ended as it should be. */
interface Streamed {
  readonly status: number;
  readonly text: string;
  readonly last: string | undefined;
}

/** Reads a stream to its end, whatever that is. */
async function readStream(pending: Promise<Response>): Promise<Streamed> {
  const response = await pending;
  const events = (await response.text()).split("\n\n").filter((event) => event !== "");
  let text = "";
  for (const event of events) {
    const data = event.replace(/^data: /, "");
    if (data === "[DONE]" || !data.includes('"choices"')) continue;
    text += (JSON.parse(data) as Completion).choices[0]!.text;
  }
  return { status: response.status, text, last: events.at(-1) };
}

/** The error in a refusal or in the last event of a stream. */
function errorOf(text: string): { readonly code: string; readonly type: string; readonly message: string } {
  return (JSON.parse(text.replace(/^data: /, "")) as { error: ReturnType<typeof errorOf> }).error;
}

async function refusal(pending: Promise<Response>): Promise<{ response: Response; code: string }> {
  const response = await pending;
  return { response, code: errorOf(await response.text()).code };
}

/** Numbers that are the same in every run (Numerical Recipes' linear congruence): 0 to below 1. */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("steps that fail", () => {
  test("end the requests that were in them with an error; later ones run, and /health stays 200", async () => {
    const server = await place.serve(["--max-sequences", "4"], {
      environment: { SLIPSTREAM_SERVE_FAIL_STEP: "24", SLIPSTREAM_SERVE_CHECK: "1" },
    });
    const expected = (await place.generate(prompt, 60)).text;
    const whole: number[] = [];
    const streams: Streamed[] = [];
    const failures = (): Streamed[] => streams.filter(({ last }) => last !== "data: [DONE]");
    const seenAll = (): boolean =>
      new Set(whole).size === 2 && failures().length > 0 && failures().length < streams.length;
    // Which step fails for whom is chance; answers of 60 tokens always meet one.
    for (let round = 0; round < 3 || (round < 30 && !seenAll()); round++) {
      const asked = [
        ...[10, 15, 60].map((tokens) => server.post(path, ask(tokens))),
        ...[10, 60].map((tokens) => server.post(path, ask(tokens, { stream: true }))),
      ];
      for (const response of await Promise.all(asked)) {
        if (response.headers.get("content-type")!.startsWith("text/event-stream")) {
          streams.push(await readStream(Promise.resolve(response)));
          continue;
        }
        whole.push(response.status);
        const body = await response.text();
        if (response.status === 200)
          expect(expected).toContain((JSON.parse(body) as Completion).choices[0]!.text);
        else expect(errorOf(body)).toMatchObject({ code: "engine_error", type: "server_error" });
      }
      expect(await server.health()).toBe(200);
    }
    expect(new Set(whole)).toEqual(new Set([200, 500]));
    expect(seenAll()).toBe(true);
    const failed = failures();
    for (const { last } of failed) {
      expect(errorOf(last!)).toMatchObject({ code: "engine_error", type: "server_error" });
      // Of the inside it says nothing.
      expect(errorOf(last!).message).not.toContain("environment");
    }
    for (const { status, text } of streams) {
      expect(status).toBe(200);
      expect(expected.startsWith(text)).toBe(true);
    }
    await server.idle();
    const errors = await server.metric("vllm:request_success_total", { finished_reason: "error" });
    expect(errors).toBe(failed.length + whole.filter((status) => status === 500).length);
    expect((await server.stop()).status).toBe(0);
  });

  test("one after the other: the engine is dead, everything is refused at once, and nothing hangs", async () => {
    const server = await place.serve(["--max-sequences", "2"], {
      environment: { SLIPSTREAM_SERVE_FAIL_STEP: "1" },
    });
    const asked = Array.from({ length: 20 }, (_, index) =>
      server.post(path, ask(50, { stream: index % 2 === 1 })).then(async (response) => {
        const body = await response.text();
        return { status: response.status, code: errorOf(body.trim()).code };
      }),
    );
    for (const { status, code } of await Promise.all(asked)) {
      // A stream says so in its last event, and who came late is told before it opens.
      expect(["engine_error", "engine_dead", "not_ready"]).toContain(code);
      expect(code === "engine_error" ? [200, 500] : [503]).toContain(status);
    }
    const health = await fetch(`${server.url}/health`);
    expect([health.status, await health.json()]).toEqual([
      503,
      { status: "dead", reason: "3 steps in a row failed" },
    ]);
    for (const route of [path, "/v1/embeddings", "/tokenize"]) {
      const { response, code } = await refusal(server.post(route, { ...ask(5), input: "a" }));
      expect([response.status, code]).toEqual([503, "engine_dead"]);
      expect(response.headers.get("retry-after")).toBe("1");
    }
    await server.idle();
    expect((await server.stop()).status).toBe(0);
  });
});

test("a full queue is refused with 503 and when to come again; what was taken is answered", async () => {
  const server = await place.serve(["--max-sequences", "2", "--max-waiting", "3"], {
    environment: { SLIPSTREAM_SERVE_STEP_DELAY: "20" },
  });
  const controller = new AbortController();
  const running = [1, 2].map(() =>
    server.post(path, ask(450), { signal: controller.signal }).catch(() => {}),
  );
  await eventually("two run", async () => (await server.metric("vllm:num_requests_running")) === 2);
  const refused: { response: Response; body: string }[] = [];
  const asked = Array.from({ length: 10 }, async (_, index) => {
    const response = await server.post(path, ask(4, { stream: index % 2 === 1 }));
    const body = await response.text();
    if (response.status !== 200) refused.push({ response, body });
  });
  await eventually("all but three are refused", () => refused.length >= 7);
  for (const { response, body } of refused) {
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toBe("1");
    expect(response.headers.get("content-type")).toBe("application/json");
    expect(errorOf(body)).toMatchObject({ code: "queue_full", type: "server_error" });
  }
  expect(await server.metric("vllm:num_requests_waiting")).toBe(3);
  expect(await server.health()).toBe(200);
  controller.abort();
  await Promise.all([...running, ...asked]);
  expect(refused).toHaveLength(7);
  await server.idle();
  await server.stop();
});

test("a request that is too long is told before its stream opens", async () => {
  const server = await place.serve(["--max-context", "100"]);
  const room = 100 - (await server.answer(path, ask(1))).usage.prompt_tokens;
  const cases: [object, string][] = [
    [{ prompt: new Array(100).fill(5) }, "prompt"],
    [{ prompt: "mole ".repeat(200) }, "prompt"],
    [{ max_tokens: room + 1 }, "max_tokens"],
  ];
  for (const [fields, param] of cases) {
    for (const stream of [false, true]) {
      const response = await server.post(path, { ...ask(1), stream, ...fields });
      expect(response.status).toBe(400);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(errorOf(await response.text())).toMatchObject({
        code: "context_length_exceeded",
        type: "invalid_request_error",
        param,
      });
    }
  }
  // The last that fits, to its last token.
  expect((await server.answer(path, ask(room))).usage.completion_tokens).toBe(room);
  await server.stop();
});

/** The bytes of a request whose answer is streamed. */
function requestBytes(body: object): string {
  const json = JSON.stringify(body);
  const head = ["POST /v1/completions HTTP/1.1", "host: test", "content-type: application/json"];
  return `${[...head, `content-length: ${Buffer.byteLength(json)}`].join("\r\n")}\r\n\r\n${json}`;
}

function connectTo(server: LiveServer): Socket {
  const { hostname, port } = new URL(server.url);
  // Connections that are cut are what these tests are about.
  return connect(Number(port), hostname).on("error", () => {});
}

test("two hundred clients come, stream and vanish: every gauge is back at zero and every block free", async () => {
  const server = await place.serve(
    ["--cache-memory", "512KiB", "--max-context", "256", "--log-level", "none"],
    {
      environment: { SLIPSTREAM_SERVE_CHECK: "1", SLIPSTREAM_SERVE_FORCE_PREEMPTION: "50" },
    },
  );
  const expected = await server.answer(path, ask(40));
  const random = randomNumbers(1);
  const shared = "The lynx hears the mole again, 5 times.\n".repeat(3);
  const clients = Array.from({ length: 200 }, async (_, index) => {
    const end = random();
    const wait = random() * 600;
    const body = ask(20 + Math.floor(random() * 150), {
      prompt: `${index % 3 === 0 ? shared : ""}${prompts[index % prompts.length]}`,
      stream: index % 4 !== 0,
      n: index % 10 === 0 ? 3 : 1,
      temperature: 1,
    });
    await new Promise((resolve) => setTimeout(resolve, random() * 400));
    const socket = connectTo(server);
    const bytes = requestBytes(body);
    // Some leave in the middle of their request, some before they read, some at the first piece or later.
    socket.write(end < 0.1 ? bytes.slice(0, Math.floor(bytes.length * random())) : bytes);
    if (end >= 0.4) socket.resume();
    else if (end >= 0.2) socket.once("data", () => socket.destroy());
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (end < 0.6) socket.destroy();
    else socket.end();
    await new Promise<void>((resolve) => {
      if (socket.destroyed) resolve();
      socket.on("close", () => resolve());
      // Who says that no more comes from it may still be answered.
      setTimeout(() => socket.destroy(), 1000);
    });
  });
  // Those who stay are served meanwhile.
  const stayed = Array.from({ length: 5 }, () => server.answer(path, ask(40)));
  for (const answer of await Promise.all(stayed)) {
    expect(answer.choices[0]!.text).toBe(expected.choices[0]!.text);
  }
  await Promise.all(clients);
  await server.idle();
  const reasons = await Promise.all(
    ["stop", "length", "abort", "error"].map((reason) =>
      server.metric("vllm:request_success_total", { finished_reason: reason }),
    ),
  );
  expect(reasons[2]).toBeGreaterThan(0);
  expect(reasons[3]).toBe(0);
  expect((await server.answer(path, ask(40))).choices[0]!.text).toBe(expected.choices[0]!.text);
  expect(await server.health()).toBe(200);
  expect(await server.stop()).toMatchObject({ status: 0, errors: "" });
});

test("a client that never reads costs no more than its answer, and others go on", async () => {
  const server = await place.serve(["--max-answers", "32"]);
  const expected = await server.answer(path, ask(40));
  const socket = connectTo(server);
  // Much more than the buffers of both sides hold: 32 answers with log-probabilities of 20 rivals each.
  socket.pause();
  socket.write(requestBytes(ask(500, { n: 32, stream: true, logprobs: 20, temperature: 1 })));
  await eventually("it is answered", async () => (await server.metric("vllm:generation_tokens_total")) > 200);
  for (let round = 0; round < 3; round++) {
    expect((await server.answer(path, ask(40))).choices[0]!.text).toBe(expected.choices[0]!.text);
    expect(await server.health()).toBe(200);
  }
  // The model does not wait for it: the answers end, and their blocks are free, although nothing was read.
  await server.idle();
  const answered = { handler: path, status: "200" };
  expect(await server.metric("http_requests_total", answered), "it is still being sent").toBe(4);
  expect(await server.metric("process_resident_memory_bytes")).toBeLessThan(2 ** 30);
  expect(await server.health()).toBe(200);
  // Nor does the end wait for it.
  expect((await server.stop()).status).toBe(0);
  socket.destroy();
});

describe("SIGTERM under load", () => {
  test("new requests are refused, running ones finish, and the status is 0", async () => {
    const server = await place.serve(["--max-sequences", "4", "--shutdown-timeout", "120"], {
      environment: { SLIPSTREAM_SERVE_STEP_DELAY: "10" },
    });
    const expected = (await place.generate(prompt, 60)).text;
    const whole = Array.from({ length: 3 }, () => server.answer(path, ask(60)));
    // More than run at once: some wait when the signal comes.
    const streams = Array.from({ length: 4 }, () => readStream(server.post(path, ask(60, { stream: true }))));
    await eventually("all are there", async () => {
      const metrics = ["vllm:num_requests_running", "vllm:num_requests_waiting"];
      const [running, waiting] = await Promise.all(metrics.map((name) => server.metric(name)));
      return running! + waiting! === 7;
    });
    server.running.child.kill("SIGTERM");
    await eventually("it drains", async () => (await server.health()) === 503);
    const health = await fetch(`${server.url}/health`);
    expect(await health.json()).toEqual({ status: "draining" });
    const { response, code } = await refusal(server.post(path, ask(5)));
    expect([response.status, code, response.headers.get("retry-after")]).toEqual([503, "not_ready", "1"]);
    for (const { choices } of await Promise.all(whole)) expect(choices[0]!.text).toBe(expected);
    for (const streamed of await Promise.all(streams)) {
      expect(streamed).toEqual({ status: 200, text: expected, last: "data: [DONE]" });
    }
    expect((await server.running.done).status).toBe(0);
    await expect(fetch(`${server.url}/health`)).rejects.toThrow();
  });

  test("what does not finish in time is cut, and says so", async () => {
    const server = await place.serve(["--max-sequences", "2", "--shutdown-timeout", "0.2"], {
      environment: { SLIPSTREAM_SERVE_STEP_DELAY: "100" },
    });
    const whole = refusal(server.post(path, ask(400)));
    const streams = Array.from({ length: 3 }, () =>
      readStream(server.post(path, ask(400, { stream: true }))),
    );
    await eventually("two run", async () => (await server.metric("vllm:num_requests_running")) === 2);
    await eventually("two wait", async () => (await server.metric("vllm:num_requests_waiting")) === 2);
    server.running.child.kill("SIGTERM");
    const { response, code } = await whole;
    expect([response.status, code]).toEqual([503, "aborted"]);
    for (const { last } of await Promise.all(streams)) expect(errorOf(last!).code).toBe("aborted");
    expect((await server.running.done).status).toBe(0);
  });
});
