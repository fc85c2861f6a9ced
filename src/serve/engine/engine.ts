import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { InternalError } from "../../base/errors.ts";
import { PhiloxStream } from "../../base/random.ts";
import { checkVocabulary } from "../../data/index.ts";
import type { CoreStatistics, Refusal } from "../core/types.ts";
import { PagedCache } from "./cache.ts";
import { Embedder } from "./embedder.ts";
import { RequestError } from "./errors.ts";
import { readTestSwitches, type TestSwitches } from "./faults.ts";
import { measureMixedBudget } from "./mixed_budget.ts";
import { type EngineLimits, type EngineParts, type EngineSettings, resolveSettings } from "./options.ts";
import { StepProgram } from "./program.ts";
import { checkPrompt, checkPromptKind, checkRequest, contextExceeded } from "./request_checks.ts";
import { RequestTrace } from "./request_trace.ts";
import { Answer, RunningRequest, type TextSources } from "./running_request.ts";
import { StepLoop } from "./step_loop.ts";
import { TokenTexts } from "./token_texts.ts";
import type {
  EngineHealth,
  EngineObserver,
  EngineStatistics,
  GenerateRequest,
  Generation,
  ServingEngine,
} from "./types.ts";

/** Serves one model to many requests at once: continuous batching over a paged cache. */
export class Engine implements ServingEngine {
  readonly modelName: string;
  readonly vocabularySize: number;
  readonly chatTemplate: string | undefined;
  readonly specialTokens: ServingEngine["specialTokens"];
  readonly endTokens: readonly number[];
  /** The settings with every default filled in. */
  readonly limits: EngineLimits;
  readonly #sources: TextSources;
  readonly #program: StepProgram;
  readonly #cache: PagedCache;
  readonly #embedder: Embedder;
  readonly #loop: StepLoop;
  readonly #observers = new Set<EngineObserver>();
  readonly #seeds: PhiloxStream;
  #health: EngineHealth = { state: "ready" };
  #requests = 0;
  #disposed: Promise<void> | undefined;

  /**
   * Plans the programs, allocates the cache and runs a few tokens, so that the first request finds weights packed.
   * @throws ConfigError for settings that cannot be used; DataError where the tokenizer does not fit the model.
   */
  static async create(options: EngineParts & EngineSettings): Promise<Engine> {
    const { model, tokenizer } = options;
    checkVocabulary(tokenizer, model.facts.vocabularySize);
    // Switches that cannot be read are told before anything is planned.
    const switches = readTestSwitches();
    const limits = resolveSettings(options, model);
    const cache = new PagedCache(model.parts.backend, model.facts, limits);
    const program = new StepProgram(model, cache, limits);
    try {
      await program.measure(1);
      const measured = options.mixedTokenBudget === undefined && model.parts.backend.name === "native";
      const mixedTokenBudget = measured ? await measureMixedBudget(program, limits) : limits.mixedTokenBudget;
      // While it serves already; a system that refuses hands memory out later.
      cache.populate().catch(() => {});
      return new Engine(options, { ...limits, mixedTokenBudget }, switches, cache, program);
    } catch (error) {
      program.dispose();
      cache.dispose();
      throw error;
    }
  }

  private constructor(
    options: EngineParts & EngineSettings,
    limits: EngineLimits,
    switches: TestSwitches,
    cache: PagedCache,
    program: StepProgram,
  ) {
    const { model, tokenizer, modelName, chatTemplate, specialTokens, endTokens, seed, trace } = options;
    this.limits = limits;
    this.modelName = modelName;
    this.vocabularySize = model.facts.vocabularySize;
    this.chatTemplate = chatTemplate;
    this.specialTokens = specialTokens ?? {};
    this.endTokens = endTokens;
    this.#sources = { tokenizer, texts: new TokenTexts(tokenizer) };
    this.#seeds = new PhiloxStream(seed ?? Math.floor(Math.random() * Number.MAX_SAFE_INTEGER));
    this.#cache = cache;
    this.#program = program;
    this.#embedder = new Embedder(model, limits.tokenBudget);
    this.#loop = new StepLoop({
      core: limits,
      program,
      cache,
      sources: this.#sources,
      switches,
      trace: trace === undefined ? undefined : new RequestTrace(trace),
      concurrent: model.parts.backend.name === "native",
      observers: this.#observers,
      onDead: (reason) => {
        this.#health = { state: "dead", reason };
      },
    });
  }

  get maximumContext(): number {
    return this.limits.maximumContext;
  }

  get health(): EngineHealth {
    return this.#health;
  }

  get statistics(): EngineStatistics {
    const core: CoreStatistics = this.#loop.statistics;
    return {
      running: core.running,
      waiting: core.waiting,
      cacheUsage: core.usedBlocks / core.blocks,
      blocks: core.blocks,
      blockSize: this.limits.blockSize,
      preemptions: core.preemptions,
      prefixQueries: core.prefixQueries,
      prefixHits: core.prefixHits,
    };
  }

  tokenize(text: string, options: { readonly special?: boolean } = {}): number[] {
    return this.#sources.tokenizer.encode(text, { addSpecialTokens: options.special ?? true });
  }

  detokenize(ids: readonly number[], options: { readonly skipSpecialTokens?: boolean } = {}): string {
    return this.#sources.tokenizer.decode(ids, options);
  }

  tokenText(id: number) {
    return this.#sources.texts.of(id);
  }

  generate(request: GenerateRequest): Generation {
    this.#requireReady();
    checkPromptKind(request.prompt);
    const prompt = typeof request.prompt === "string" ? this.#encode(request.prompt) : [...request.prompt];
    const checked = checkRequest(request, prompt, {
      vocabularySize: this.vocabularySize,
      maximumContext: this.maximumContext,
      maximumSequences: this.limits.maximumSequences,
    });
    const key = `r${this.#requests++}`;
    const running = new RunningRequest(
      { id: request.id ?? randomUUID(), key },
      request,
      prompt,
      checked,
      this.endTokens,
      (abandoned) => this.#loop.abort(abandoned),
    );
    const core = {
      id: key,
      prompt,
      answers: checked.n,
      maximumTokens: checked.maxTokens,
      priority: checked.priority,
      ...(request.tenant === undefined ? {} : { tenant: request.tenant }),
      ...(request.cacheSalt === undefined ? {} : { cacheSalt: request.cacheSalt }),
    };
    const seed = checked.seed ?? this.#seeds.nextUint32() * 2 ** 21 + (this.#seeds.nextUint32() >>> 11);
    let refusal: Refusal | undefined;
    try {
      refusal = this.#loop.add(running, core, (info) => new Answer(running, info, this.#sources, seed));
    } catch (error) {
      running.close();
      throw error;
    }
    if (refusal !== undefined) {
      running.close();
      throw refused(refusal, prompt.length);
    }
    if (request.signal?.aborted === true) this.#loop.abort(running);
    return running;
  }

  async embed(
    inputs: readonly (readonly number[])[],
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<Float32Array[]> {
    this.#requireReady();
    for (const input of inputs) checkPrompt(input, this, 0);
    if (this.#embedder.pending >= this.limits.maximumWaiting) {
      throw refused(
        { kind: "queue_full", waiting: this.#embedder.pending, limit: this.limits.maximumWaiting },
        0,
      );
    }
    return this.#embedder.embed(inputs, options.signal);
  }

  observe(observer: EngineObserver): void {
    this.#observers.add(observer);
  }

  async drain({ timeoutSeconds }: { readonly timeoutSeconds: number }): Promise<void> {
    if (this.#health.state === "ready") this.#health = { state: "draining" };
    const timer = new AbortController();
    const timeout = sleep(timeoutSeconds * 1000, undefined, { signal: timer.signal }).catch(() => {});
    await Promise.race([Promise.all([this.#loop.idle(), this.#embedder.idle()]), timeout]);
    timer.abort();
    this.#loop.abortAll();
    await this.#loop.idle();
  }

  dispose(): Promise<void> {
    this.#disposed ??= this.#dispose();
    return this.#disposed;
  }

  async #dispose(): Promise<void> {
    this.#health = { state: "dead", reason: "the engine was disposed" };
    this.#loop.abortAll();
    await this.#loop.stop();
    await this.#embedder.dispose();
    this.#program.dispose();
    this.#cache.dispose();
  }

  #requireReady(): void {
    const health = this.#health;
    if (health.state === "ready") return;
    throw new RequestError("not_ready", "the engine takes no requests", {
      received: health.state === "dead" ? `it stopped: ${health.reason}` : "it is draining",
    });
  }

  #encode(text: string): number[] {
    const ids = this.tokenize(text);
    if (ids.length > 0) return ids;
    // An empty prompt begins with the token that begins texts; some tokenizers do not add it by themselves.
    const { beginToken, endToken } = this.#sources.tokenizer;
    const begin = beginToken ?? endToken;
    return begin === undefined ? [] : [begin];
  }
}

function refused(refusal: Refusal, promptTokens: number): RequestError {
  switch (refusal.kind) {
    case "queue_full":
      return new RequestError("queue_full", "too many requests wait already", {
        expected: `at most ${refusal.limit} waiting requests`,
        received: `${refusal.waiting} waiting`,
        hint: "try again later",
      });
    case "context_length_exceeded":
      return contextExceeded(refusal.limit, promptTokens, `${refusal.tokens} of the prompt`);
    case "pool_too_small":
      return new RequestError("context_length_exceeded", "the request does not fit into the cache", {
        parameter: "maxTokens",
        expected: `at most ${refusal.limit} blocks`,
        received: `${refusal.blocks} blocks`,
        hint: "ask for fewer tokens, or give the engine a larger cache",
      });
    case "too_many_answers":
      return new RequestError("invalid_request", "n is more than run at once", {
        parameter: "n",
        expected: `at most ${refusal.limit}`,
        received: String(refusal.answers),
      });
    default:
      throw new InternalError(`a refusal of another kind: ${JSON.stringify(refusal satisfies never)}`);
  }
}
