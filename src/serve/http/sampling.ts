import type { GenerateRequest, ServingEngine } from "../engine/types.ts";
import { ApiError, clip, invalid } from "./errors.ts";
import type { SamplingFields } from "./schema/sampling.ts";

/** Refuses ids that are no token of the model. @param parameter the field, for the answer */
export function checkTokenIds(ids: readonly number[], engine: ServingEngine, parameter: string): void {
  for (let index = 0; index < ids.length; index++) {
    const id = ids[index]!;
    if (id >= 0 && id < engine.vocabularySize && Number.isInteger(id)) continue;
    throw invalid(
      `${parameter}[${index}]`,
      `invalid '${parameter}[${index}]': ${id} is no token id; they go from 0 to ${engine.vocabularySize - 1}`,
    );
  }
}

function readBias(bias: Readonly<Record<string, number>>, engine: ServingEngine): Map<number, number> {
  const result = new Map<number, number>();
  for (const [key, value] of Object.entries(bias)) {
    const id = /^\d{1,10}$/.test(key) ? Number(key) : -1;
    if (id < 0 || id >= engine.vocabularySize) {
      const shown = JSON.stringify(clip(key, 40));
      throw invalid(
        "logit_bias",
        `invalid 'logit_bias': ${shown} is no token id; they go from 0 to ${engine.vocabularySize - 1}`,
      );
    }
    result.set(id, value);
  }
  return result;
}

/** What a request asks of how its answers are chosen and ended: all of a GenerateRequest but the prompt. */
export type SamplingRequest = Omit<GenerateRequest, "prompt" | "maxTokens" | "signal" | "id">;

/**
 * The engine's parameters from the checked fields of a body.
 * @param maximumAnswers `n` at the most
 * @throws ApiError 400 for what fits the schema but not the model, or not together
 */
export function readSampling(
  body: SamplingFields,
  engine: ServingEngine,
  maximumAnswers: number,
): SamplingRequest {
  if (body.n > maximumAnswers) throw invalid("n", `invalid 'n': at most ${maximumAnswers} answers`);
  if (body.best_of !== undefined && body.best_of !== body.n) {
    throw invalid("best_of", "'best_of' is not supported beyond 'n'", "unsupported_parameter");
  }
  if (body.stream_options !== undefined && !body.stream) {
    throw invalid("stream_options", "'stream_options' is only for requests with 'stream': true");
  }
  checkTokenIds(body.stop_token_ids, engine, "stop_token_ids");
  return {
    n: body.n,
    temperature: body.temperature,
    // OpenAI accepts 0: only the likeliest token.
    topP: Math.max(body.top_p, 1e-6),
    topK: Math.min(Math.max(body.top_k, 0), engine.vocabularySize),
    minP: body.min_p,
    repetitionPenalty: body.repetition_penalty,
    presencePenalty: body.presence_penalty,
    frequencyPenalty: body.frequency_penalty,
    ...(body.logit_bias === undefined ? {} : { logitBias: readBias(body.logit_bias, engine) }),
    ...(body.seed === undefined ? {} : { seed: body.seed }),
    stop: body.stop,
    stopTokens: body.stop_token_ids,
    includeStop: body.include_stop_str_in_output,
    minTokens: body.min_tokens,
    ignoreEos: body.ignore_eos,
    skipSpecialTokens: body.skip_special_tokens,
    priority: body.priority,
    ...(body.cache_salt === undefined ? {} : { cacheSalt: body.cache_salt }),
  };
}

/**
 * Tokens that each answer may have: what was asked for, or what is left of the context.
 * @throws ApiError 400 `context_length_exceeded`
 */
export function answerLength(
  asked: number | undefined,
  promptTokens: number,
  engine: ServingEngine,
  parameter: { readonly prompt: string; readonly length: string },
): number {
  const limit = engine.maximumContext;
  const left = limit - promptTokens;
  if (left >= (asked ?? 1)) return asked ?? left;
  const wanted = asked === undefined ? "" : ` and ${asked} for the answer`;
  throw new ApiError(
    400,
    `this model's maximum context length is ${limit} tokens; the request has ${promptTokens} in the prompt${wanted}`,
    { code: "context_length_exceeded", parameter: left < 1 ? parameter.prompt : parameter.length },
  );
}
