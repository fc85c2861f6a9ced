import type { Tokenizer } from "./tokenizer.ts";

const replacement = "\uFFFD";

/** Bytes of a UTF-8 character that can stand at the end of a text without completing it. */
const longestUnfinished = 3;

/** Tokens kept as context; decoders look no further back than a character or a space. */
const longestWindow = 64;

/**
 * Turns a stream of token ids into text piece by piece. The pieces together are what `decode` gives
 * for all ids at once; a piece never ends within a UTF-8 character, however many tokens the character
 * is spread over.
 *
 * Decoders look at more than one token (a leading space is stripped, bytes are joined), so each step
 * decodes a short window that reaches back before the new token, and emits what it adds.
 */
export class StreamDecoder {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecialTokens: boolean;
  #window: number[];
  /** Index in the window of the first token after the last point at which the text was whole. */
  #settled: number;
  /** Characters of the window's text that have been emitted. */
  #emitted: number;

  /** `context` are the ids that came before, such as the prompt's; they are not emitted. */
  constructor(
    tokenizer: Tokenizer,
    options: { readonly context?: ArrayLike<number>; readonly skipSpecialTokens?: boolean } = {},
  ) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = options.skipSpecialTokens ?? true;
    this.#window = Array.from(options.context ?? []).slice(-longestWindow / 2);
    this.#settled = this.#window.length;
    this.#emitted = this.#text().length;
  }

  /** The text that `id` completes; empty while a character is unfinished. */
  push(id: number): string {
    this.#window.push(id);
    const text = this.#text();
    const whole = text.length - unfinishedCharacters(text);
    const piece = text.slice(this.#emitted, whole);
    this.#emitted = Math.max(this.#emitted, whole);
    if (whole === text.length && piece !== "") this.#forget(this.#settled, text.length);
    else if (this.#window.length > longestWindow) this.#forget(longestWindow / 2, text.length);
    return piece;
  }

  /** What is left at the end of the stream: an unfinished character as the replacement character. */
  flush(): string {
    const piece = this.#text().slice(this.#emitted);
    this.#window = [];
    this.#settled = 0;
    this.#emitted = 0;
    return piece;
  }

  /** Drops the window's first tokens; what was not yet emitted of its `length` characters stays so. */
  #forget(tokens: number, length: number): void {
    const pending = length - this.#emitted;
    this.#window = this.#window.slice(tokens);
    this.#settled = this.#window.length;
    this.#emitted = this.#text().length - pending;
  }

  #text(): string {
    return this.#tokenizer.decode(this.#window, { skipSpecialTokens: this.#skipSpecialTokens });
  }
}

function unfinishedCharacters(text: string): number {
  let count = 0;
  while (count < longestUnfinished && text.at(-1 - count) === replacement) count++;
  return count;
}
