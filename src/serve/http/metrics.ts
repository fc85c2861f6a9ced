/**
 * Prometheus metrics under vLLM's names and labels, so that its dashboards and Kubernetes' inference gateway read
 * them unchanged.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { EngineObserver, FinishReason, RequestReport, ServingEngine } from "../engine/types.ts";

/** vLLM's bounds, finer below 10 ms: small models on a CPU have tokens faster than its first bound. */
const tokenSeconds = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20,
  40, 80,
];
const firstTokenSeconds = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
  2560,
];
const requestSeconds = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];
const stepTokens = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];
const finishReasons: readonly FinishReason[] = ["stop", "length", "abort", "error"];

/** 1, 2, 5, 10, 20, ... up to `limit`. */
function oneTwoFive(limit: number): number[] {
  const bounds: number[] = [];
  for (let power = 1; power <= limit; power *= 10) {
    for (const factor of [1, 2, 5]) if (factor * power <= limit) bounds.push(factor * power);
  }
  return bounds;
}

/** The process's own metrics and those of HTTP: there from the start, before any model. */
export class ServerMetrics {
  readonly #registry = new Registry();
  readonly #requests: Counter<"handler" | "method" | "status">;
  #engine: Registry | undefined;

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
    this.#requests = new Counter({
      name: "http_requests_total",
      help: "HTTP requests by route, method and status.",
      labelNames: ["handler", "method", "status"],
      registers: [this.#registry],
    });
  }

  /** Counts one answered request. @param handler the route's pattern, not the path that came */
  answered(handler: string, method: string, status: number): void {
    this.#requests.inc({ handler, method, status });
  }

  /** Adds what the engine reports. */
  watch(engine: ServingEngine, modelName: string): void {
    this.#engine = engineRegistry(engine, modelName);
  }

  /** Everything in Prometheus' text format. */
  async text(): Promise<string> {
    const engine = this.#engine === undefined ? "" : await this.#engine.metrics();
    return `${engine}${await this.#registry.metrics()}`;
  }

  /** The content type of `text()`. */
  get contentType(): string {
    return this.#registry.contentType;
  }
}

/** The metrics of an engine, observed from now on. */
function engineRegistry(engine: ServingEngine, modelName: string): Registry {
  const registry = new Registry();
  // Set once instead of with every observation, which happens for every token.
  registry.setDefaultLabels({ model_name: modelName, engine: "0" });
  addGauges(registry, engine);
  engine.observe(requestObserver(registry, engine));
  return registry;
}

function addGauges(registry: Registry, engine: ServingEngine): void {
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  };
  /** A counter that the engine keeps itself. */
  const counter = (name: string, help: string, read: () => number): void => {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  };
  gauge("vllm:num_requests_running", "Requests in the batches that run.", () => engine.statistics.running);
  gauge("vllm:num_requests_waiting", "Requests that wait.", () => engine.statistics.waiting);
  gauge(
    "vllm:kv_cache_usage_perc",
    "Share of the key/value cache in use; 1 is all of it.",
    () => engine.statistics.cacheUsage,
  );
  counter(
    "vllm:num_preemptions_total",
    "Sequences that lost their blocks and were recomputed.",
    () => engine.statistics.preemptions,
  );
  counter(
    "vllm:prefix_cache_queries_total",
    "Prompt tokens looked up in the prefix cache.",
    () => engine.statistics.prefixQueries,
  );
  counter(
    "vllm:prefix_cache_hits_total",
    "Prompt tokens found in the prefix cache.",
    () => engine.statistics.prefixHits,
  );
  const { blocks, blockSize } = engine.statistics;
  new Gauge({
    name: "vllm:cache_config_info",
    help: "How the key/value cache is laid out.",
    labelNames: ["block_size", "num_gpu_blocks", "num_cpu_blocks"],
    registers,
    // The gateway reads the pool's size by this name, wherever the pool is.
  }).set({ block_size: blockSize, num_gpu_blocks: blocks, num_cpu_blocks: 0 }, 1);
}

/** Counters and histograms, and the observer that fills them. */
function requestObserver(registry: Registry, engine: ServingEngine): EngineObserver {
  const registers = [registry];
  const counter = (name: string, help: string) => new Counter({ name, help, registers });
  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, buckets, registers });
  const lengths = oneTwoFive(engine.maximumContext);

  const promptTokens = counter("vllm:prompt_tokens_total", "Prompt tokens processed.");
  const answerTokens = counter("vllm:generation_tokens_total", "Tokens generated.");
  const success = new Counter({
    name: "vllm:request_success_total",
    help: "Finished answers by reason.",
    labelNames: ["finished_reason"],
    registers,
  });
  for (const reason of finishReasons) success.inc({ finished_reason: reason }, 0);

  const iteration = histogram("vllm:iteration_tokens_total", "Tokens of a step.", stepTokens);
  const firstToken = histogram(
    "vllm:time_to_first_token_seconds",
    "Seconds from arrival to the first token.",
    firstTokenSeconds,
  );
  const interToken = histogram(
    "vllm:inter_token_latency_seconds",
    "Seconds between two tokens.",
    tokenSeconds,
  );
  const perToken = histogram(
    "vllm:time_per_output_token_seconds",
    "Seconds between two tokens: the older name of vllm:inter_token_latency_seconds.",
    tokenSeconds,
  );
  const meanToken = histogram(
    "vllm:request_time_per_output_token_seconds",
    "Mean seconds between the tokens of a request.",
    tokenSeconds,
  );
  const whole = histogram(
    "vllm:e2e_request_latency_seconds",
    "Seconds from arrival to the end.",
    requestSeconds,
  );
  const queue = histogram("vllm:request_queue_time_seconds", "Seconds of waiting.", requestSeconds);
  const inference = histogram("vllm:request_inference_time_seconds", "Seconds of running.", requestSeconds);
  const prefill = histogram(
    "vllm:request_prefill_time_seconds",
    "Seconds from the start of running to the first token.",
    requestSeconds,
  );
  const decode = histogram(
    "vllm:request_decode_time_seconds",
    "Seconds from the first token to the end.",
    requestSeconds,
  );
  const requestPrompt = histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", lengths);
  const requestAnswer = histogram(
    "vllm:request_generation_tokens",
    "Tokens generated for a request.",
    lengths,
  );
  const askedAnswers = histogram("vllm:request_params_n", "Answers asked for.", [1, 2, 5, 10, 20]);
  const askedTokens = histogram("vllm:request_params_max_tokens", "Tokens asked for at the most.", lengths);

  const observeTimes = (report: RequestReport): void => {
    const { seconds, queueSeconds, firstTokenSeconds: first, answerTokens: tokens, answers } = report;
    whole.observe(seconds);
    if (queueSeconds === undefined) return;
    queue.observe(queueSeconds);
    inference.observe(seconds - queueSeconds);
    if (first === undefined) return;
    prefill.observe(first - queueSeconds);
    decode.observe(seconds - first);
    // The answers of a request run side by side.
    const gaps = tokens / answers - 1;
    if (gaps > 0) meanToken.observe((seconds - first) / gaps);
  };
  return {
    step(report) {
      promptTokens.inc(report.promptTokens);
      iteration.observe(report.tokens);
    },
    interToken(seconds) {
      answerTokens.inc();
      interToken.observe(seconds);
      perToken.observe(seconds);
    },
    firstToken(seconds) {
      answerTokens.inc();
      firstToken.observe(seconds);
    },
    finished(report) {
      // The first tokens of the answers beyond the first, of which no call tells.
      if (report.firstTokenSeconds !== undefined) answerTokens.inc(report.answers - 1);
      for (const reason of report.finishReasons) success.inc({ finished_reason: reason });
      observeTimes(report);
      requestPrompt.observe(report.promptTokens);
      requestAnswer.observe(report.answerTokens);
      askedAnswers.observe(report.answers);
      askedTokens.observe(report.maximumTokens);
    },
  };
}
