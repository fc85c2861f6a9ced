/** /metrics as Prometheus, vLLM's dashboards and Kubernetes' inference gateway read it. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Family, metricOf, parseMetrics } from "./prometheus.ts";
import { type LiveServer, prompts, ServingPlace } from "./support.ts";

const modelName = "tiny/model";
const labels = { model_name: modelName, engine: "0" };

let place: ServingPlace;
let server: LiveServer;
let before: Map<string, Family>;
let after: Map<string, Family>;

/** What was sent, and what it must be counted as. */
const sent = { requests: 0, prompt: 0, answer: 0, stopped: 0, length: 0 };

async function ask(fields: object): Promise<void> {
  const body = { prompt: prompts[3], temperature: 0, ...fields };
  const { usage, choices } = await server.answer("/v1/completions", body);
  sent.requests++;
  sent.prompt += usage.prompt_tokens;
  sent.answer += usage.completion_tokens;
  for (const { finish_reason: reason } of choices) sent[reason === "stop" ? "stopped" : "length"]++;
}

beforeAll(async () => {
  place = await ServingPlace.create();
  server = await place.serve([
    ...[
      "--served-model-name",
      modelName,
      "--block-size",
      "8",
      "--max-context",
      "256",
      "--max-sequences",
      "4",
    ],
  ]);
  before = await server.metrics();
  for (let round = 0; round < 3; round++) await ask({ max_tokens: 20, ignore_eos: true });
  await ask({ max_tokens: 10, ignore_eos: true, n: 3 });
  await ask({ max_tokens: 1, ignore_eos: true });
  await ask({ max_tokens: 30, stop: [" the"] });
  await Promise.all(
    prompts.slice(0, 6).map((prompt) => ask({ prompt: prompt.repeat(8), max_tokens: 25, ignore_eos: true })),
  );
  const refused = await server.post("/v1/completions", { prompt: "a", max_tokens: -1 });
  await refused.text();
  await server.idle();
  after = await server.metrics();
});
afterAll(() => place.close());

/** The names under which a family's samples stand, with the kind of family. */
const expected: Readonly<Record<string, Family["type"]>> = {
  "vllm:num_requests_running": "gauge",
  "vllm:num_requests_waiting": "gauge",
  "vllm:kv_cache_usage_perc": "gauge",
  "vllm:cache_config_info": "gauge",
  "vllm:num_preemptions_total": "counter",
  "vllm:prefix_cache_queries_total": "counter",
  "vllm:prefix_cache_hits_total": "counter",
  "vllm:prompt_tokens_total": "counter",
  "vllm:generation_tokens_total": "counter",
  "vllm:request_success_total": "counter",
  "vllm:iteration_tokens_total": "histogram",
  "vllm:time_to_first_token_seconds": "histogram",
  "vllm:inter_token_latency_seconds": "histogram",
  "vllm:e2e_request_latency_seconds": "histogram",
  "vllm:request_queue_time_seconds": "histogram",
  "vllm:request_inference_time_seconds": "histogram",
  "vllm:request_prefill_time_seconds": "histogram",
  "vllm:request_decode_time_seconds": "histogram",
  "vllm:request_prompt_tokens": "histogram",
  "vllm:request_generation_tokens": "histogram",
  "vllm:request_params_n": "histogram",
  "vllm:request_params_max_tokens": "histogram",
};

test("every family has vLLM's name, kind and labels, from the start", () => {
  for (const [name, type] of Object.entries(expected)) {
    for (const families of [before, after]) {
      const family = families.get(name);
      expect(family?.type, name).toBe(type);
      expect(family!.help.length).toBeGreaterThan(10);
      expect(family!.samples.length, name).toBeGreaterThan(0);
      for (const sample of family!.samples) expect(sample.labels, name).toMatchObject(labels);
    }
  }
});

test("the content type is the text format's", async () => {
  const response = await fetch(`${server.url}/metrics`);
  expect(response.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  await response.text();
});

test("the cache's layout stands in labels, as the gateway reads it", () => {
  const { samples } = after.get("vllm:cache_config_info")!;
  // 4 sequences of 256 tokens, in blocks of 8.
  expect(samples).toEqual([
    {
      name: "vllm:cache_config_info",
      labels: { ...labels, block_size: "8", num_gpu_blocks: "128", num_cpu_blocks: "0" },
      value: 1,
    },
  ]);
});

test("counters are what was sent, and nothing is left running", () => {
  const value = (name: string, more: Record<string, string> = {}): number => metricOf(after, name, more);
  for (const name of ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"]) {
    expect([metricOf(before, name), value(name)]).toEqual([0, 0]);
  }
  expect(sent.requests).toBe(12);
  expect(value("vllm:generation_tokens_total")).toBe(sent.answer);
  expect(value("vllm:prefix_cache_queries_total")).toBe(sent.prompt);
  // What was found in the cache is not computed.
  const hits = value("vllm:prefix_cache_hits_total");
  expect(value("vllm:prompt_tokens_total")).toBe(sent.prompt - hits);
  expect(hits % 8).toBe(0);
  expect(value("vllm:request_success_total", { finished_reason: "stop" })).toBe(sent.stopped);
  expect(value("vllm:request_success_total", { finished_reason: "length" })).toBe(sent.length);
  expect(value("vllm:request_success_total", { finished_reason: "abort" })).toBe(0);
  expect(value("vllm:request_success_total", { finished_reason: "error" })).toBe(0);
  expect([sent.stopped, sent.length]).toEqual([1, 13]);
});

describe("histograms", () => {
  test("count every request once, and every token", () => {
    for (const name of [
      "vllm:time_to_first_token_seconds",
      "vllm:e2e_request_latency_seconds",
      "vllm:request_queue_time_seconds",
      "vllm:request_inference_time_seconds",
      "vllm:request_prefill_time_seconds",
      "vllm:request_decode_time_seconds",
      "vllm:request_prompt_tokens",
      "vllm:request_generation_tokens",
      "vllm:request_params_n",
      "vllm:request_params_max_tokens",
    ]) {
      expect(metricOf(after, `${name}_count`), name).toBe(sent.requests);
    }
    expect(metricOf(after, "vllm:request_prompt_tokens_sum")).toBe(sent.prompt);
    expect(metricOf(after, "vllm:request_generation_tokens_sum")).toBe(sent.answer);
    expect(metricOf(after, "vllm:request_params_n_sum")).toBe(sent.requests + 2);
    expect(metricOf(after, "vllm:request_params_max_tokens_sum")).toBe(3 * 20 + 10 + 1 + 30 + 6 * 25);
    // Gaps: one less than there are tokens, for each of 14 answers.
    const answers = sent.stopped + sent.length;
    expect(metricOf(after, "vllm:inter_token_latency_seconds_count")).toBe(sent.answer - answers);
  });

  test("times add up", () => {
    const sum = (name: string): number => metricOf(after, `vllm:${name}_seconds_sum`);
    const [queue, run, whole] = [
      sum("request_queue_time"),
      sum("request_inference_time"),
      sum("e2e_request_latency"),
    ];
    expect(queue + run).toBeCloseTo(whole, 6);
    expect(sum("request_prefill_time") + sum("request_decode_time")).toBeCloseTo(run, 6);
    expect(queue + sum("request_prefill_time")).toBeCloseTo(sum("time_to_first_token"), 6);
    expect(queue).toBeGreaterThan(0);
  });
});

test("requests are counted by route and status; the paths that strangers try are not", async () => {
  const posted = { handler: "/v1/completions", method: "POST" };
  expect(metricOf(after, "http_requests_total", { ...posted, status: "200" })).toBe(sent.requests);
  expect(metricOf(after, "http_requests_total", { ...posted, status: "400" })).toBe(1);
  for (const path of ["/admin", "/wp-login.php", "/v1/models/none", "/v1/models/other"]) {
    await (await fetch(server.url + path)).text();
  }
  const families = await server.metrics();
  const handlers = families.get("http_requests_total")!.samples.map((sample) => sample.labels.handler);
  expect(handlers).toContain("/v1/models/{id}");
  expect(handlers.join()).not.toMatch(/admin|php|none/);
});

test("the reader of this test refuses what Prometheus would", () => {
  const family = "# HELP a Of a.\n# TYPE a counter\n";
  expect(metricOf(parseMetrics(`${family}a{b="c\\"\\n,d"} 1e3\n`), "a", { b: 'c"\n,d' })).toBe(1000);
  for (const [text, problem] of [
    ["a 1\n", "stands in no family"],
    [`${family}a 1`, "does not end"],
    [`${family}a one\n`, "no value"],
    [`${family}a 1\na 2\n`, "stands twice"],
    [`${family}${family}a 1\n`, "stands twice"],
    [`${family}a{b=c} 1\n`, "no label"],
    [`${family}a{b="1",b="2"} 1\n`, "stands twice"],
    [`${family}b 1\n`, "stands in no family"],
    ["# TYPE a counter\na 1\n", "no help"],
    [
      '# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n',
      "out of order",
    ],
    ['# HELP h x\n# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 1\nh_count 1\n', "ends at 1"],
  ] as const) {
    expect(() => parseMetrics(text), text).toThrow(problem);
  }
});
