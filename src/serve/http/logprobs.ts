import type { TokenLogprob } from "../engine/types.ts";

/** Log-probabilities as /v1/completions reports them: parallel lists, one entry a token. */
export interface LegacyLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: number[];
  readonly top_logprobs: Record<string, number>[] | null;
  /** Where each token begins in the answer, in UTF-16 code units. */
  readonly text_offset: number[];
}

/** JSON has no -Infinity: what cannot happen is as unlikely as vLLM says it is. */
function finite(logprob: number): number {
  return Math.max(logprob, -9999);
}

/**
 * @param offset where the first token begins in the answer
 * @param rivals how many of the likeliest tokens to name; 0 for none
 */
export function legacyLogprobs(
  entries: readonly TokenLogprob[],
  offset: number,
  rivals: number,
): LegacyLogprobs {
  let position = offset;
  return {
    tokens: entries.map((entry) => entry.text),
    token_logprobs: entries.map((entry) => finite(entry.logprob)),
    top_logprobs:
      rivals === 0
        ? null
        : entries.map((entry) =>
            // The token itself is always named, after its rivals where it is not among them.
            Object.fromEntries([...entry.top, entry].map(({ text, logprob }) => [text, finite(logprob)])),
          ),
    text_offset: entries.map((entry) => {
      const start = position;
      position += entry.text.length;
      return start;
    }),
  };
}

/** Log-probabilities as /v1/chat/completions reports them. */
export function chatLogprobs(entries: readonly TokenLogprob[]): object {
  const describe = (entry: { text: string; bytes: readonly number[]; logprob: number }) => ({
    token: entry.text,
    logprob: finite(entry.logprob),
    bytes: entry.bytes,
  });
  return {
    content: entries.map((entry) => ({ ...describe(entry), top_logprobs: entry.top.map(describe) })),
    refusal: null,
  };
}
