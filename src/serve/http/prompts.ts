import type { ServingEngine } from "../engine/types.ts";
import { ApiError, invalid } from "./errors.ts";
import { checkTokenIds } from "./sampling.ts";

/** One input of a request: its tokens, and its text where that was what came. */
export interface Input {
  readonly tokens: readonly number[];
  readonly text: string | undefined;
}

/** Tokens by which a part of a text may have more than it adds to the whole: words that were cut are. */
const tokensOfCut = 16;

/**
 * The tokens of a text. A text that is far too long is refused when so many tokens are counted: the work is bounded
 * by the context, not by the text, for it keeps everybody else waiting.
 * @param special whether the tokenizer adds its own tokens
 * @throws ApiError 400 `context_length_exceeded`
 */
export function tokenizeText(
  text: string,
  engine: ServingEngine,
  special: boolean,
  parameter: string,
): readonly number[] {
  const limit = engine.maximumContext;
  // Most texts have fewer than four characters a token, and most that fit are no longer than this.
  const length = Math.max(limit * 4, 1024);
  let counted = 0;
  for (let start = 0; text.length > length && start < text.length; start += length) {
    counted += engine.tokenize(text.slice(start, start + length), { special: false }).length - tokensOfCut;
    if (counted <= limit) continue;
    throw new ApiError(
      400,
      `this model's maximum context length is ${limit} tokens; ${text.length} characters are more`,
      { code: "context_length_exceeded", parameter },
    );
  }
  return engine.tokenize(text, { special });
}

function isIds(value: readonly unknown[]): value is readonly number[] {
  return value.every((item) => typeof item === "number");
}

function readOne(value: unknown, engine: ServingEngine, special: boolean, parameter: string): Input {
  if (typeof value === "string") {
    return { tokens: tokenizeText(value, engine, special, parameter), text: value };
  }
  if (Array.isArray(value) && value.length > 0 && isIds(value)) {
    checkTokenIds(value, engine, parameter);
    return { tokens: value, text: undefined };
  }
  throw invalid(
    parameter,
    `invalid '${parameter}': expected a text or a list of token ids that is not empty`,
  );
}

/** What `readInputs` needs to know besides the value. */
export interface InputOptions {
  /** The field, for refusals. */
  readonly parameter: string;
  /** Inputs at the most. */
  readonly limit: number;
  /** Whether the tokenizer adds its own tokens to texts. */
  readonly special: boolean;
}

/**
 * The inputs in a `prompt` or `input` field: a text, token ids, or a list of either.
 * @throws ApiError 400
 */
export function readInputs(value: unknown, engine: ServingEngine, options: InputOptions): Input[] {
  const { parameter, limit, special } = options;
  if (!Array.isArray(value) || (value.length > 0 && isIds(value))) {
    return [readOne(value, engine, special, parameter)];
  }
  if (value.length === 0) throw invalid(parameter, `invalid '${parameter}': it is empty`);
  if (value.length > limit) {
    throw invalid(parameter, `invalid '${parameter}': ${value.length} inputs; at most ${limit} in a request`);
  }
  return value.map((item, index) => readOne(item, engine, special, `${parameter}[${index}]`));
}
