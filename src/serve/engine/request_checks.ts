import { maximumLogprobs } from "../../graph/ops.ts";
import { RequestError } from "./errors.ts";
import type { GenerateRequest } from "./types.ts";

/** A request with every default filled in, checked. */
export interface CheckedRequest {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly logitBias: ReadonlyMap<number, number>;
  readonly seed: number | undefined;
  readonly maxTokens: number;
  readonly minTokens: number;
  readonly ignoreEos: boolean;
  readonly n: number;
  readonly stop: readonly string[];
  readonly stopTokens: readonly number[];
  readonly includeStop: boolean;
  /** undefined: none are wanted. */
  readonly logprobs: number | undefined;
  readonly skipSpecialTokens: boolean;
  readonly priority: number;
}

/** What requests are held against. */
export interface RequestLimits {
  readonly vocabularySize: number;
  readonly maximumContext: number;
  readonly maximumSequences: number;
}

/** How many tokens a request can bias or ban, its own stop tokens and the model's end tokens included. */
export const maximumBiases = 2048;

const maximumLogitBiases = 1024;
const maximumStopTokens = 512;
const maximumStops = 64;
const maximumStopLength = 1024;

/**
 * Checks everything of a request but its prompt's text.
 * @throws RequestError `invalid_request` naming the parameter, or `context_length_exceeded`.
 */
export function checkRequest(
  request: GenerateRequest,
  prompt: readonly number[],
  limits: RequestLimits,
): CheckedRequest {
  const { vocabularySize, maximumContext, maximumSequences } = limits;
  checkPrompt(prompt, limits);
  const room = maximumContext - prompt.length;
  const maxTokens = integer("maxTokens", request.maxTokens ?? room, 1, Number.MAX_SAFE_INTEGER);
  if (maxTokens > room) {
    throw contextExceeded(
      maximumContext,
      prompt.length,
      `${prompt.length} of the prompt and ${maxTokens} of the answer`,
    );
  }
  const ids = (name: string, values: Iterable<number>): void => {
    for (const id of values) integer(name, id, 0, vocabularySize - 1);
  };
  const logitBias = request.logitBias ?? new Map<number, number>();
  if (!(logitBias instanceof Map))
    throw invalid("logitBias", "a Map of biases by token id", describe(logitBias));
  if (logitBias.size > maximumLogitBiases) {
    throw invalid("logitBias", `at most ${maximumLogitBiases} tokens`, `${logitBias.size}`);
  }
  ids("logitBias", logitBias.keys());
  for (const bias of logitBias.values()) number("logitBias", bias, -1e9, 1e9);
  const stopTokens = request.stopTokens ?? [];
  if (stopTokens.length > maximumStopTokens) {
    throw invalid("stopTokens", `at most ${maximumStopTokens} tokens`, `${stopTokens.length}`);
  }
  ids("stopTokens", stopTokens);
  checkStops(request.stop ?? []);
  const repetitionPenalty = number("repetitionPenalty", request.repetitionPenalty ?? 1, 0, 1e9);
  if (repetitionPenalty === 0) throw invalid("repetitionPenalty", "a number above 0", "0");
  const topP = number("topP", request.topP ?? 1, 0, 1);
  if (topP === 0) throw invalid("topP", "a number above 0, up to 1", "0");
  const { seed, logprobs } = request;
  return {
    temperature: number("temperature", request.temperature ?? 1, 0, 1e9),
    topK: integer("topK", request.topK ?? 0, 0, Number.MAX_SAFE_INTEGER),
    topP,
    minP: number("minP", request.minP ?? 0, 0, 1),
    repetitionPenalty,
    presencePenalty: number("presencePenalty", request.presencePenalty ?? 0, -2, 2),
    frequencyPenalty: number("frequencyPenalty", request.frequencyPenalty ?? 0, -2, 2),
    logitBias,
    seed:
      seed === undefined
        ? undefined
        : integer("seed", seed, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
    maxTokens,
    minTokens: integer("minTokens", request.minTokens ?? 0, 0, maxTokens),
    ignoreEos: request.ignoreEos ?? false,
    n: integer("n", request.n ?? 1, 1, maximumSequences),
    stop: request.stop ?? [],
    stopTokens,
    includeStop: request.includeStop ?? false,
    logprobs: logprobs === undefined ? undefined : integer("logprobs", logprobs, 0, maximumLogprobs),
    skipSpecialTokens: request.skipSpecialTokens ?? true,
    priority: integer("priority", request.priority ?? 0, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  };
}

/** Checks the ids of a prompt. @throws RequestError where there are none, too many, or wrong ones. */
export function checkPrompt(
  prompt: readonly number[],
  { vocabularySize, maximumContext }: Omit<RequestLimits, "maximumSequences">,
  room = 1,
): void {
  if (prompt.length === 0) throw invalid("prompt", "at least one token", "an empty prompt");
  if (prompt.length + room > maximumContext) {
    throw contextExceeded(maximumContext, prompt.length, `${prompt.length} of the prompt`);
  }
  for (const id of prompt) integer("prompt", id, 0, vocabularySize - 1);
}

/** Whether the prompt is of a kind that can be run at all. @throws RequestError where it is neither text nor ids. */
export function checkPromptKind(prompt: unknown): void {
  if (typeof prompt === "string" || Array.isArray(prompt)) return;
  throw invalid("prompt", "a text or an array of token ids", describe(prompt));
}

function checkStops(stops: readonly string[]): void {
  if (!Array.isArray(stops)) throw invalid("stop", "an array of texts", describe(stops));
  if (stops.length > maximumStops) {
    throw invalid("stop", `at most ${maximumStops} texts`, `${stops.length}`);
  }
  for (const stop of stops) {
    if (typeof stop === "string" && stop.length >= 1 && stop.length <= maximumStopLength) continue;
    const received = typeof stop === "string" ? `${stop.length} characters` : typeof stop;
    throw invalid("stop", `texts of 1 to ${maximumStopLength} characters`, received);
  }
}

/** A request that asks for more tokens than the context holds. */
export function contextExceeded(limit: number, tokens: number, received: string): RequestError {
  return new RequestError("context_length_exceeded", `the model's context is ${limit} tokens`, {
    parameter: tokens >= limit ? "prompt" : "maxTokens",
    expected: `at most ${limit} tokens, prompt and answer together`,
    received,
  });
}

function invalid(parameter: string, expected: string, received: string): RequestError {
  return new RequestError("invalid_request", `${parameter} cannot be used`, {
    parameter,
    expected,
    received,
  });
}

function number(name: string, value: number, low: number, high: number): number {
  if (typeof value === "number" && value >= low && value <= high) return value;
  throw invalid(name, `a number from ${low} to ${high}`, describe(value));
}

function integer(name: string, value: number, low: number, high: number): number {
  if (Number.isSafeInteger(value) && value >= low && value <= high) return value;
  throw invalid(name, `an integer from ${low} to ${high}`, describe(value));
}

/** A wrong value, never more of it than a message should show. */
function describe(value: unknown): string {
  return typeof value === "number" ? String(value) : `a ${typeof value}`;
}
