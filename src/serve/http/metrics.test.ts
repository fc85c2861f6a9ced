import { expect, test } from "vitest";
import { eventually, startServer, type TestServer } from "../../../test/support/http_server.ts";

/** Every sample by its name and labels, read as Prometheus' text format is defined. */
async function scrape(server: TestServer): Promise<Map<string, number>> {
  const response = await server.get("/metrics");
  expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
  const samples = new Map<string, number>();
  for (const line of (await response.text()).split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const found = /^([\w:]+(?:\{[^}]*\})?) (\S+)$/.exec(line);
    expect(found, line).not.toBeNull();
    expect(samples.has(found![1]!), `twice: ${line}`).toBe(false);
    samples.set(found![1]!, Number(found![2]));
  }
  return samples;
}

const labels = 'model_name="fake",engine="0"';

test("the gauges and counters that gateways read have vLLM's names and labels", async () => {
  const server = await startServer();
  const samples = await scrape(server);
  // The fake engine's figures.
  expect(samples.get(`vllm:num_requests_running{${labels}}`)).toBe(0);
  expect(samples.get(`vllm:num_requests_waiting{${labels}}`)).toBe(0);
  expect(samples.get(`vllm:kv_cache_usage_perc{${labels}}`)).toBe(0);
  expect(samples.get(`vllm:num_preemptions_total{${labels}}`)).toBe(3);
  expect(samples.get(`vllm:prefix_cache_queries_total{${labels}}`)).toBe(40);
  expect(samples.get(`vllm:prefix_cache_hits_total{${labels}}`)).toBe(12);
  const cache = `block_size="16",num_gpu_blocks="64",num_cpu_blocks="0",${labels}`;
  expect(samples.get(`vllm:cache_config_info{${cache}}`)).toBe(1);
  expect(samples.get("process_resident_memory_bytes")).toBeGreaterThan(1e6);
});

test("requests move counters and histograms, and gauges come back to zero", async () => {
  const server = await startServer({ answer: () => "abcd", stepMilliseconds: 10 });
  const running = server.post("/v1/completions", { prompt: "xy", max_tokens: 9, n: 2 });
  await eventually(() => server.engine.statistics.running === 1);
  expect((await scrape(server)).get(`vllm:num_requests_running{${labels}}`)).toBe(1);
  expect((await scrape(server)).get(`vllm:kv_cache_usage_perc{${labels}}`)).toBe(1 / 64);
  await (await running).text();
  await (await server.post("/v1/completions", { prompt: "x", max_tokens: 2 })).text();
  await (await server.post("/v1/completions", { prompt: "x", max_tokens: 0 })).text();
  const samples = await scrape(server);
  const value = (name: string, extra = ""): number | undefined => samples.get(`${name}{${extra}${labels}}`);
  expect(value("vllm:num_requests_running")).toBe(0);
  // Two answers of four letters and an end, and one of two letters.
  expect(value("vllm:generation_tokens_total")).toBe(12);
  expect(value("vllm:request_success_total", 'finished_reason="stop",')).toBe(2);
  expect(value("vllm:request_success_total", 'finished_reason="length",')).toBe(1);
  expect(value("vllm:request_success_total", 'finished_reason="abort",')).toBe(0);
  expect(value("vllm:request_params_n_sum")).toBe(3);
  expect(value("vllm:request_params_n_bucket", 'le="1",')).toBe(1);
  expect(value("vllm:request_params_max_tokens_sum")).toBe(11);
  expect(value("vllm:request_prompt_tokens_sum")).toBe(5);
  expect(value("vllm:request_generation_tokens_sum")).toBe(12);
  expect(value("vllm:iteration_tokens_total_sum")).toBe(12);
  expect(value("vllm:time_to_first_token_seconds_count")).toBe(2);
  expect(value("vllm:time_to_first_token_seconds_bucket", 'le="0.02",')).toBe(2);
  expect(value("vllm:time_to_first_token_seconds_bucket", 'le="0.01",')).toBe(0);
  for (const name of ["vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"]) {
    expect(value(`${name}_count`)).toBe(9);
    expect(value(`${name}_sum`)).toBeCloseTo(0.036, 9);
  }
  for (const name of [
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
    "request_time_per_output_token_seconds",
  ]) {
    expect(value(`vllm:${name}_count`), name).toBe(2);
  }
  const parts =
    value("vllm:request_prefill_time_seconds_sum")! + value("vllm:request_decode_time_seconds_sum")!;
  expect(parts).toBeCloseTo(value("vllm:request_inference_time_seconds_sum")!, 6);
  expect(samples.get('http_requests_total{handler="/v1/completions",method="POST",status="200"}')).toBe(2);
  expect(samples.get('http_requests_total{handler="/v1/completions",method="POST",status="400"}')).toBe(1);
});

test("a model's name cannot break the format", async () => {
  const server = await startServer({}, { modelNames: ['a"b\\c\nd'] });
  const response = await server.get("/metrics");
  expect(await response.text()).toContain(
    'vllm:num_requests_running{model_name="a\\"b\\\\c\\nd",engine="0"} 0',
  );
});

test("paths that nobody knows do not become labels", async () => {
  const server = await startServer();
  await (await server.get("/a")).text();
  await (await server.get("/b")).text();
  const samples = await scrape(server);
  expect(samples.get('http_requests_total{handler="unknown",method="GET",status="404"}')).toBe(2);
});
