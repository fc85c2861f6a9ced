import type { Grammar } from "../structured/types.ts";

/** How tokens are chosen. Defaults are those of vLLM's sampling parameters. */
export interface SamplingParameters {
  /** 0 is greedy; 1 by default. */
  readonly temperature?: number;
  /** Only the k most likely; 0 (the default) for all. */
  readonly topK?: number;
  /** Only the most likely whose probabilities reach p; 1 by default. */
  readonly topP?: number;
  /** Only those at least p times as likely as the most likely; 0 by default. */
  readonly minP?: number;
  /** Divides positive and multiplies negative logits of tokens in prompt or answer (arXiv 1909.05858); 1 by default. */
  readonly repetitionPenalty?: number;
  /** Taken once from logits of tokens in the answer (OpenAI); 0 by default. */
  readonly presencePenalty?: number;
  /** Taken from logits as often as the token is in the answer (OpenAI); 0 by default. */
  readonly frequencyPenalty?: number;
  /** Added to logits by token id. */
  readonly logitBias?: ReadonlyMap<number, number>;
  /** The same seed gives the same answer, whatever else is in the batch. Random by default. */
  readonly seed?: number;
}

/** One request to the engine. */
export interface GenerateRequest extends SamplingParameters {
  /** Text, or token ids as they are. */
  readonly prompt: string | readonly number[];
  /** Tokens of each answer at the most; what is left of the context by default. */
  readonly maxTokens?: number;
  /** End-of-text and stop tokens are not sampled before so many tokens. */
  readonly minTokens?: number;
  /** Goes on after end-of-text tokens. */
  readonly ignoreEos?: boolean;
  /** Answers to the same prompt; 1 by default. */
  readonly n?: number;
  /** Texts that end an answer; not part of it unless `includeStop`. */
  readonly stop?: readonly string[];
  readonly stopTokens?: readonly number[];
  readonly includeStop?: boolean;
  /** Log-probabilities of each token, and of so many of the most likely (0 to 20); none by default. */
  readonly logprobs?: number;
  /** What the answer must be. */
  readonly grammar?: Grammar;
  /** Whether special tokens are left out of the text; true by default. */
  readonly skipSpecialTokens?: boolean;
  /** Smaller runs earlier; 0 by default. */
  readonly priority?: number;
  /** Whom it is for: waiting requests take turns by tenant. */
  readonly tenant?: string;
  /** Prefixes are shared only among requests of the same salt. */
  readonly cacheSalt?: string;
  /** Ends the request and frees what it holds within one step. */
  readonly signal?: AbortSignal;
  /** A name for logs and traces; made by the engine by default. */
  readonly id?: string;
}

/** A token and what the model thought of it and its rivals, before penalties and temperature. */
export interface TokenLogprob {
  readonly token: number;
  readonly text: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
  readonly top: readonly {
    readonly token: number;
    readonly text: string;
    readonly bytes: readonly number[];
    readonly logprob: number;
  }[];
}

/** Why an answer ended: a stop token or text, its length, the client, or a fault. */
export type FinishReason = "stop" | "length" | "abort" | "error";

/** What one step added to one answer. */
export interface Piece {
  /** Which answer: 0 to n - 1. */
  readonly index: number;
  /** Whole characters only; may be empty. */
  readonly text: string;
  readonly tokens: readonly number[];
  /** Of each of `tokens`, where asked for. */
  readonly logprobs?: readonly TokenLogprob[];
  /** In the last piece of the answer. */
  readonly finishReason?: FinishReason;
  /** The stop text or stop token that ended it, where one did. */
  readonly stopReason?: string | number;
  /** What went wrong, where `finishReason` is "error": for people, without internals. */
  readonly error?: string;
}

/** A running request. */
export interface Generation extends AsyncIterable<Piece> {
  readonly id: string;
  /** Ids of the prompt. */
  readonly prompt: readonly number[];
  /** Prompt tokens found in the prefix cache; known after the first piece. */
  readonly cachedTokens: number;
}

/** Whether the engine can take requests. */
export type EngineHealth =
  | { readonly state: "ready" }
  | { readonly state: "draining" }
  | { readonly state: "dead"; readonly reason: string };

/** One finished step, for metrics. Seconds. */
export interface StepReport {
  readonly seconds: number;
  /** Of these, inside the native program. */
  readonly programSeconds: number;
  readonly tokens: number;
  readonly sequences: number;
  readonly preempted: number;
  /** Prompt and answer tokens among `tokens`. */
  readonly promptTokens: number;
  readonly answerTokens: number;
}

/** One finished request, for metrics. Seconds from its arrival; undefined where it never got so far. */
export interface RequestReport {
  readonly id: string;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly answerTokens: number;
  readonly answers: number;
  readonly maximumTokens: number;
  readonly finishReasons: readonly FinishReason[];
  readonly queueSeconds: number | undefined;
  readonly firstTokenSeconds: number | undefined;
  readonly seconds: number;
}

/** Who wants to know what the engine does. Called within the step loop: must return at once. */
export interface EngineObserver {
  step?(report: StepReport): void;
  /** Seconds between two tokens of one answer. */
  interToken?(seconds: number): void;
  firstToken?(seconds: number): void;
  finished?(report: RequestReport): void;
  /** A fault inside the engine, for logs: requests are told no more than that there was one. */
  failed?(error: unknown): void;
}

/** Gauges of the moment. */
export interface EngineStatistics {
  readonly running: number;
  readonly waiting: number;
  /** 0 to 1. */
  readonly cacheUsage: number;
  readonly blocks: number;
  readonly blockSize: number;
  readonly preemptions: number;
  readonly prefixQueries: number;
  readonly prefixHits: number;
}

/** What the server needs of an engine. */
export interface ServingEngine {
  /** The name under which the model is served. */
  readonly modelName: string;
  readonly vocabularySize: number;
  readonly maximumContext: number;
  readonly health: EngineHealth;
  readonly statistics: EngineStatistics;
  /** Answers that run at once and requests that may wait, so that a full queue is seen before any work is done. */
  readonly limits?: { readonly maximumSequences: number; readonly maximumWaiting: number };
  /** The Jinja source of the chat template, and the special tokens that it may name. */
  readonly chatTemplate: string | undefined;
  readonly specialTokens: {
    readonly bos?: string;
    readonly eos?: string;
    readonly pad?: string;
    readonly unk?: string;
  };
  /** Ids of a text. @param special whether the tokenizer adds its own (such as begin-of-text); true by default */
  tokenize(text: string, options?: { readonly special?: boolean }): number[];
  detokenize(ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string;
  /** The text and bytes of one token, and whether it is a special one. */
  tokenText(id: number): {
    readonly text: string;
    readonly bytes: readonly number[];
    readonly special: boolean;
  };
  /** Tokens that end a text. */
  readonly endTokens: readonly number[];
  /**
   * Starts a request.
   * @throws RequestError (see errors.ts) before anything runs: `queue_full`, `context_length_exceeded`,
   * `invalid_request`, `not_ready`.
   */
  generate(request: GenerateRequest): Generation;
  /** Mean of the final hidden states of each input's tokens, of length 1: f32 `[inputs][size]`. */
  embed(
    inputs: readonly (readonly number[])[],
    options?: { readonly signal?: AbortSignal },
  ): Promise<Float32Array[]>;
  observe(observer: EngineObserver): void;
  /** Refuses new requests and waits for those that run, cutting them at the timeout. */
  drain(options: { readonly timeoutSeconds: number }): Promise<void>;
  /** Frees everything. */
  dispose(): Promise<void>;
}
