import { ConfigError } from "../base/errors.ts";
import type { Tokenizer } from "../data/index.ts";
import type { LanguageModel } from "../models/family.ts";
import type { TrainConfig } from "./config/index.ts";

/** A text that the model continues now and then, and its tokens. */
export interface SamplePrompt {
  readonly text: string;
  /** At least one, and fewer than the model has positions. */
  readonly ids: readonly number[];
}

/**
 * The prompts of `samples` as tokens, checked before the run so that it does not end at its first sample.
 * @throws ConfigError naming the prompt that has no tokens or leaves the model no position to write on.
 */
export function encodePrompts(
  config: TrainConfig,
  tokenizer: Tokenizer,
  { facts }: LanguageModel,
): SamplePrompt[] {
  return (config.samples?.prompts ?? []).map((text, index) => {
    const encoded = tokenizer.encode(text);
    const begin = tokenizer.beginToken ?? tokenizer.endToken;
    const ids = encoded.length === 0 && begin !== undefined ? [begin] : encoded;
    const where = `samples.prompts[${index}]`;
    if (ids.length === 0) {
      throw new ConfigError(
        "empty_prompt",
        "the prompt is empty, and the tokenizer has no token that begins a text",
        { where, hint: "give a prompt of at least one character" },
      );
    }
    if (ids.length >= facts.maximumPositions) {
      throw new ConfigError("prompt_too_long", "a prompt leaves the model no position to write on", {
        where,
        expected: `fewer than ${facts.maximumPositions} tokens (the model's positions)`,
        received: `${ids.length} tokens`,
      });
    }
    return { text, ids };
  });
}
