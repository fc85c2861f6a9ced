import type { ServingEngine } from "../engine/types.ts";
import { ApiError, invalid } from "./errors.ts";
import { checkTokenIds } from "./sampling.ts";

/** One input of a request: its tokens, and its text where that was what came. */
export interface Input {
  readonly tokens: readonly number[];
  readonly text: string | undefined;
}

/** Bytes of the model's longest token, found once a model. */
const longestTokens = new WeakMap<ServingEngine, number>();

function longestToken(engine: ServingEngine): number {
  let longest = longestTokens.get(engine);
  if (longest === undefined) {
    longest = 1;
    for (let id = 0; id < engine.vocabularySize; id++) {
      longest = Math.max(longest, engine.tokenText(id).bytes.length);
    }
    longestTokens.set(engine, longest);
  }
  return longest;
}

/**
 * The tokens of a text. A text so long that it cannot fit whatever its tokens are is refused without the work.
 * @param special whether the tokenizer adds its own tokens
 * @throws ApiError 400 `context_length_exceeded`
 */
export function tokenizeText(
  text: string,
  engine: ServingEngine,
  special: boolean,
  parameter: string,
): readonly number[] {
  // Most tokens are far shorter than 16 bytes: a text within that is tokenized without more ado.
  if (
    text.length > engine.maximumContext * 16 &&
    text.length > engine.maximumContext * longestToken(engine)
  ) {
    throw new ApiError(
      400,
      `this model's maximum context length is ${engine.maximumContext} tokens; ${text.length} characters are more`,
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
