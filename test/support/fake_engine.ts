import { StringDecoder } from "node:string_decoder";
import { setTimeout as sleep } from "node:timers/promises";
import { RequestError } from "../../src/serve/engine/errors.ts";
import type {
  EngineHealth,
  EngineObserver,
  FinishReason,
  GenerateRequest,
  Generation,
  Piece,
  ServingEngine,
  TokenLogprob,
} from "../../src/serve/engine/types.ts";

/** How the fake engine behaves. */
export interface FakeOptions {
  /** What it answers; by default a text that names prompt and answer. */
  readonly answer?: (request: GenerateRequest, index: number) => string;
  /** Milliseconds of a step; by default a turn of the event loop. */
  readonly stepMilliseconds?: number;
  readonly maximumRunning?: number;
  readonly maximumWaiting?: number;
  readonly maximumContext?: number;
  /** The step of a request in which its forward pass fails. */
  readonly failAt?: number;
  readonly chatTemplate?: string;
}

const bos = 256;
const eos = 257;

interface Running {
  readonly request: GenerateRequest;
  readonly answers: Answer[];
  readonly queue: Piece[];
  readonly arrived: number;
  started: number | undefined;
  first: number | undefined;
  steps: number;
  finished: FinishReason[];
  done: boolean;
  cut: boolean;
  wake: () => void;
}

interface Answer {
  readonly bytes: Buffer;
  readonly decoder: StringDecoder;
  readonly constraint: ReturnType<NonNullable<GenerateRequest["grammar"]>["start"]> | undefined;
  position: number;
  done: boolean;
}

/**
 * A serving engine without a model, for tests of what is around one. A token is a byte (256 begins a text, 257
 * ends it), so characters come in parts as they do with real tokenizers. A step gives every running answer one
 * token.
 */
export class FakeEngine implements ServingEngine {
  readonly modelName = "fake";
  readonly vocabularySize = 258;
  readonly endTokens = [eos];
  readonly specialTokens = { bos: "<s>", eos: "</s>" };
  readonly maximumContext: number;
  readonly limits: { readonly maximumSequences: number; readonly maximumWaiting: number };
  readonly chatTemplate: string | undefined;
  /** Every request that came, in order. */
  readonly requests: GenerateRequest[] = [];
  health: EngineHealth = { state: "ready" };
  readonly #options: FakeOptions;
  readonly #observers: EngineObserver[] = [];
  readonly #running: Running[] = [];
  readonly #waiting: Running[] = [];
  #stepping = false;

  constructor(options: FakeOptions = {}) {
    this.#options = options;
    this.maximumContext = options.maximumContext ?? 1024;
    const { maximumRunning = 256, maximumWaiting = 1024 } = options;
    this.limits = { maximumSequences: maximumRunning, maximumWaiting };
    this.chatTemplate = options.chatTemplate;
  }

  get statistics() {
    const running = this.#running.length;
    return {
      running,
      waiting: this.#waiting.length,
      cacheUsage: running / 64,
      blocks: 64,
      blockSize: 16,
      preemptions: 3,
      prefixQueries: 40,
      prefixHits: 12,
    };
  }

  tokenize(text: string, options: { readonly special?: boolean } = {}): number[] {
    const bytes = [...Buffer.from(text)];
    return options.special === false ? bytes : [bos, ...bytes];
  }

  detokenize(ids: readonly number[], options: { readonly skipSpecialTokens?: boolean } = {}): string {
    const skip = options.skipSpecialTokens !== false;
    return Buffer.concat(
      ids.map((id) => Buffer.from(skip && id >= bos ? [] : this.tokenText(id).bytes)),
    ).toString();
  }

  tokenText(id: number) {
    const special = id >= bos;
    const bytes = special ? [...Buffer.from(id === bos ? "<s>" : "</s>")] : [id];
    return { text: special ? Buffer.from(bytes).toString() : String.fromCharCode(id), bytes, special };
  }

  generate(request: GenerateRequest): Generation {
    const prompt = typeof request.prompt === "string" ? this.tokenize(request.prompt) : request.prompt;
    if (this.health.state !== "ready") throw new RequestError("not_ready", "the engine takes no requests");
    if (prompt.length >= this.maximumContext) {
      throw new RequestError("context_length_exceeded", "too long", { parameter: "prompt" });
    }
    if (this.#waiting.length >= this.limits.maximumWaiting) {
      throw new RequestError("queue_full", "the queue is full");
    }
    if ((request.minTokens ?? 0) > (request.maxTokens ?? this.maximumContext)) {
      throw new RequestError("invalid_request", "minTokens cannot be used", { parameter: "minTokens" });
    }
    this.requests.push(request);
    const answer = this.#options.answer ?? ((_, index) => ` answer ${index} to ${prompt.length} tokens`);
    const running: Running = {
      request,
      answers: Array.from({ length: request.n ?? 1 }, (_, index) => ({
        bytes: Buffer.from(answer(request, index)),
        decoder: new StringDecoder(),
        constraint: request.grammar?.start(),
        position: 0,
        done: false,
      })),
      queue: [],
      arrived: performance.now(),
      started: undefined,
      first: undefined,
      steps: 0,
      finished: [],
      done: false,
      cut: false,
      wake: () => {},
    };
    this.#waiting.push(running);
    request.signal?.addEventListener("abort", () => this.#cut(running));
    void this.#run();
    return {
      id: request.id ?? "fake",
      prompt,
      cachedTokens: 2,
      [Symbol.asyncIterator]: () => pieces(running),
    };
  }

  async embed(inputs: readonly (readonly number[])[]): Promise<Float32Array[]> {
    return inputs.map((ids) => Float32Array.of(ids.length, ids[0]!, 0.5, -1.25));
  }

  observe(observer: EngineObserver): void {
    this.#observers.push(observer);
  }

  async drain({ timeoutSeconds }: { readonly timeoutSeconds: number }): Promise<void> {
    if (this.health.state === "ready") this.health = { state: "draining" };
    const end = performance.now() + timeoutSeconds * 1000;
    while (this.#running.length + this.#waiting.length > 0 && performance.now() < end) await sleep(2);
    for (const running of [...this.#running, ...this.#waiting]) this.#cut(running);
  }

  async dispose(): Promise<void> {}

  async #run(): Promise<void> {
    if (this.#stepping) return;
    this.#stepping = true;
    while (this.#running.length + this.#waiting.length > 0) {
      await sleep(this.#options.stepMilliseconds ?? 0);
      this.#admit();
      let tokens = 0;
      for (const running of [...this.#running]) tokens += this.#step(running);
      const report = { seconds: 0.01, programSeconds: 0.009, tokens, sequences: tokens, preempted: 0 };
      for (const observer of this.#observers) {
        observer.step?.({ ...report, promptTokens: 0, answerTokens: tokens });
      }
    }
    this.#stepping = false;
  }

  #admit(): void {
    while (this.#waiting.length > 0 && this.#running.length < this.limits.maximumSequences) {
      const next = this.#waiting.shift()!;
      next.started = performance.now();
      this.#running.push(next);
    }
  }

  #step(running: Running): number {
    const failing = running.steps === this.#options.failAt;
    running.steps++;
    let tokens = 0;
    for (const [index, answer] of running.answers.entries()) {
      if (answer.done) continue;
      const piece = failing
        ? { index, text: "", tokens: [], finishReason: "error" as const, error: "the forward pass failed" }
        : this.#next(running.request, answer, index);
      tokens++;
      running.queue.push(piece);
      if (piece.finishReason === undefined) continue;
      answer.done = true;
      running.finished.push(piece.finishReason);
    }
    for (const observer of this.#observers) {
      if (running.first === undefined) observer.firstToken?.(0.02);
      else for (let answer = 0; answer < tokens; answer++) observer.interToken?.(0.004);
    }
    running.first ??= performance.now();
    if (running.answers.every((answer) => answer.done)) this.#finish(running);
    running.wake();
    return tokens;
  }

  #next(request: GenerateRequest, answer: Answer, index: number): Piece {
    const scripted = answer.bytes[answer.position] ?? eos;
    const token = answer.constraint === undefined ? scripted : this.#allowed(answer, scripted);
    answer.position++;
    const ended = token === eos;
    const finishReason = ended ? "stop" : answer.position === request.maxTokens ? "length" : undefined;
    const bytes = ended ? Buffer.alloc(0) : Buffer.of(token);
    return {
      index,
      text: finishReason === undefined ? answer.decoder.write(bytes) : answer.decoder.end(bytes),
      tokens: [token],
      ...(request.logprobs === undefined ? {} : { logprobs: [this.#logprob(token, request.logprobs)] }),
      ...(finishReason === undefined ? {} : { finishReason }),
    };
  }

  /** The scripted token where the grammar allows it, otherwise the first that it does. */
  #allowed({ constraint }: Answer, scripted: number): number {
    const mask = new Int32Array(Math.ceil(this.vocabularySize / 32));
    constraint!.fillMask(mask);
    const fits = (id: number): boolean => (mask[id >> 5]! & (1 << (id & 31))) !== 0;
    let token = scripted;
    if (!fits(token)) token = Array.from({ length: this.vocabularySize }, (_, id) => id).find(fits)!;
    constraint!.accept(token);
    return token;
  }

  #logprob(token: number, rivals: number): TokenLogprob {
    const describe = (id: number, logprob: number) => {
      const { text, bytes } = this.tokenText(id);
      return { token: id, text, bytes, logprob };
    };
    const top = Array.from({ length: rivals }, (_, rank) =>
      rank === 0 ? describe(token, -0.25) : describe(rank, rank === 1 ? -2.5 : Number.NEGATIVE_INFINITY),
    );
    return { ...describe(token, -0.25), top };
  }

  #cut(running: Running): void {
    if (running.done) return;
    running.cut = true;
    for (const [index, answer] of running.answers.entries()) {
      if (answer.done) continue;
      answer.done = true;
      running.queue.push({ index, text: "", tokens: [], finishReason: "abort" });
      running.finished.push("abort");
    }
    this.#finish(running);
    running.wake();
  }

  #finish(running: Running): void {
    running.done = true;
    for (const list of [this.#running, this.#waiting]) {
      const place = list.indexOf(running);
      if (place >= 0) list.splice(place, 1);
    }
    const since = (time: number | undefined) =>
      time === undefined ? undefined : (time - running.arrived) / 1000;
    const { request, answers, finished } = running;
    for (const observer of this.#observers) {
      observer.finished?.({
        id: request.id ?? "fake",
        promptTokens: request.prompt.length,
        cachedTokens: 2,
        answerTokens: answers.reduce((sum, answer) => sum + answer.position, 0),
        answers: answers.length,
        maximumTokens: request.maxTokens ?? this.maximumContext,
        finishReasons: finished,
        queueSeconds: since(running.started),
        firstTokenSeconds: since(running.first),
        seconds: since(performance.now())!,
      });
    }
  }
}

async function* pieces(running: Running): AsyncGenerator<Piece> {
  while (true) {
    while (running.queue.length > 0) yield running.queue.shift()!;
    if (running.done) return;
    await new Promise<void>((resolve) => {
      running.wake = resolve;
    });
  }
}
