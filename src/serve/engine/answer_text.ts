import { StreamDecoder, type Tokenizer } from "../../data/index.ts";
import { StopMatcher } from "./stop_strings.ts";

/** The settings of `AnswerText`. */
export interface AnswerTextOptions {
  /** Ids of the prompt: decoders look back at them. */
  readonly context: readonly number[];
  readonly skipSpecialTokens: boolean;
  readonly stop: readonly string[];
  readonly includeStop: boolean;
  /** Stop texts count from the token after so many on. */
  readonly minTokens: number;
}

/** What one token added to the text, and the stop text that it completed. */
export interface AddedText {
  readonly text: string;
  readonly stop?: string;
}

/** The text of one answer as its tokens come: whole characters only, and nothing of a stop text. */
export class AnswerText {
  readonly #decoder: StreamDecoder;
  readonly #matcher: StopMatcher | undefined;
  readonly #minTokens: number;
  #tokens = 0;

  constructor(tokenizer: Tokenizer, options: AnswerTextOptions) {
    const { context, skipSpecialTokens, stop, includeStop, minTokens } = options;
    this.#decoder = new StreamDecoder(tokenizer, { context, skipSpecialTokens });
    this.#matcher = stop.length === 0 ? undefined : new StopMatcher(stop, includeStop);
    this.#minTokens = minTokens;
  }

  /** Takes the next token. */
  push(token: number): AddedText {
    this.#tokens++;
    const text = this.#decoder.push(token);
    if (this.#matcher === undefined || this.#tokens <= this.#minTokens) return { text };
    return this.#matcher.push(text);
  }

  /** What was held back; the answer ends here. */
  flush(): string {
    const rest = this.#decoder.flush();
    if (this.#matcher === undefined) return rest;
    // What is left of an unfinished character may complete a stop text no more than any other piece.
    const { text } = this.#matcher.push(rest);
    return text + this.#matcher.flush();
  }
}
