import { type Config, type Outcome, type Running, Workplace } from "../support.ts";
import { type Family, metricOf, parseMetrics } from "./prometheus.ts";

const animals = ["whale", "otter", "heron", "lynx", "mole"];
const verbs = ["swims past", "looks at", "follows", "hears"];
const manners = ["quietly", "again", "at noon", "with care", "in the rain"];

/** Text of which a tiny model learns enough that its greedy answers differ from prompt to prompt; some is JSON. */
const text = Array.from({ length: 240 }, (_, line) => {
  const animal = animals[(line * 7) % 5]!;
  const other = animals[(line * 3 + 1) % 5]!;
  const count = (line * 37) % 24;
  if (line % 6 === 5) {
    const ok = line % 4 === 1;
    return `{"name": "${animal}", "count": ${count}, "tags": ["${other}", "x"], "ok": ${ok}, "rate": -0.5, "none": null}`;
  }
  return `The ${animal} ${verbs[(line * 5) % 4]} the ${other} ${manners[(line * line + 2) % 5]}, ${count} times.`;
}).join("\n");

const config: Config = {
  model: { max_position_embeddings: 512 },
  tokenizer: { train: { vocabulary_size: 400 } },
  data: { sequence_length: 64 },
  max_steps: 120,
  train_micro_batch_size_per_gpu: 4,
  optimizer: { type: "AdamW", params: { lr: 0.01 } },
};

/** Writes conversations and tools as the Hermes models have them. */
const chatTemplate = `{%- if tools %}
{{- 'Tools:' }}
{%- for tool in tools %}
{{- ' ' + tool.function.name }}
{%- endfor %}
{{- '\\nAnswer with <tool_call>{"name": ..., "arguments": ...}</tool_call>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- message.role + ': ' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + ({"name": call.function.name, "arguments": call.function.arguments} | tojson) + '</tool_call>' }}
{%- endfor %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}`;

/** Prompts that a test may send; the model answers each otherwise. */
export const prompts: readonly string[] = animals.flatMap((animal) =>
  verbs.map((verb) => `The ${animal} ${verb}`),
);

/** What a server holds once nobody wants anything of it. */
export const gauges = [
  "vllm:num_requests_running",
  "vllm:num_requests_waiting",
  "vllm:kv_cache_usage_perc",
] as const;

/** How long a condition may take to come true on a machine with other things to do. Milliseconds. */
const patience = 60_000;

/** Waits until `check` gives something, and returns that. @throws Error saying what never came */
export async function eventually<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const end = performance.now() + patience;
  for (;;) {
    const found = await check();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > end) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** What tests send: JSON, or text and bytes as they are. */
export interface Sending {
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  readonly method?: string;
}

/** `slipstream serve` in a process of its own. */
export class LiveServer {
  readonly url: string;
  readonly running: Running;

  constructor(url: string, running: Running) {
    this.url = url;
    this.running = running;
  }

  /** Where OpenAI's clients find it. */
  get baseURL(): string {
    return `${this.url}/v1`;
  }

  /** POSTs a JSON body, or text and bytes as they are. */
  post(path: string, body: unknown, { headers = {}, ...rest }: Sending = {}): Promise<Response> {
    return fetch(this.url + path, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
      ...rest,
    });
  }

  /** POSTs and parses a body that must be a 200's. */
  async answer<T = Completion>(path: string, body: unknown, sending: Sending = {}): Promise<T> {
    const response = await this.post(path, body, sending);
    const text = await response.text();
    if (response.status !== 200) throw new Error(`${path}: ${response.status} ${text}`);
    return JSON.parse(text) as T;
  }

  /** Everything at /metrics. */
  async metrics(): Promise<Map<string, Family>> {
    const response = await fetch(`${this.url}/metrics`);
    return parseMetrics(await response.text());
  }

  /** One number of /metrics. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    return metricOf(await this.metrics(), name, labels);
  }

  /** The status of /health. */
  async health(): Promise<number> {
    const response = await fetch(`${this.url}/health`);
    await response.arrayBuffer();
    return response.status;
  }

  /** Waits until nothing runs, nothing waits, and every block of the cache is free. */
  async idle(): Promise<void> {
    await eventually("every gauge back to zero", async () => {
      const families = await this.metrics();
      return gauges.every((name) => metricOf(families, name) === 0);
    });
  }

  /** Sends a signal and waits for the end. */
  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<Outcome> {
    this.running.child.kill(signal);
    return await this.running.done;
  }
}

/** What tests read of answers; each has some of it. */
export interface Completion {
  readonly choices: readonly {
    readonly text: string;
    readonly finish_reason: string;
    readonly logprobs: { readonly tokens: readonly string[] } | null;
    readonly message: { readonly content: string | null };
  }[];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  };
  readonly error?: { readonly message: string; readonly code: string; readonly type: string };
}

/** How a server is started. */
export interface StartOptions {
  /** A path within the place; the trained model by default. */
  readonly model?: string;
  readonly environment?: NodeJS.ProcessEnv;
}

/** A folder with a trained model, `out/model`, and the servers that were started on it. */
export class ServingPlace extends Workplace {
  /** Where the trained model is. */
  readonly trained = "out/model";
  readonly #servers: LiveServer[] = [];

  /** Trains the model, which takes a second. */
  static async create(): Promise<ServingPlace> {
    const place = new ServingPlace();
    place.write("text.txt", text);
    await place.train([place.config(config)]);
    place.write(`${place.trained}/chat_template.jinja`, chatTemplate);
    return place;
  }

  /** Starts a server and waits until it is ready. @throws Error with what it wrote, where it ends before */
  async serve(parameters: readonly string[] = [], options: StartOptions = {}): Promise<LiveServer> {
    const { model = this.trained, environment = {} } = options;
    const command = ["serve", model, "--port", "0", ...parameters];
    const running = this.start(command, { SLIPSTREAM_API_KEY: "", ...environment });
    const [, url] = await running.seen(/^serving \S+ at (http:\/\/127\.0\.0\.1:\d+)$/m);
    const server = new LiveServer(url!, running);
    this.#servers.push(server);
    return server;
  }

  /** What `slipstream generate` answers greedily: the ids of the answer, and its text. */
  async generate(
    prompt: string,
    maxTokens: number,
  ): Promise<{ readonly ids: number[]; readonly text: string }> {
    const { status, output, errors } = await this.run([
      ...["generate", this.trained, "--prompt", prompt, "--max-tokens", String(maxTokens)],
      ...["--temperature", "0", "--json"],
    ]);
    if (status !== 0) throw new Error(errors);
    return JSON.parse(output) as { ids: number[]; text: string };
  }

  /** Ends every server that still runs, and removes the folder. */
  async close(): Promise<void> {
    await Promise.all(this.#servers.map((server) => server.stop("SIGKILL")));
    this[Symbol.dispose]();
  }
}
