/** What a matcher lets through of a text, and the stop text that ended it, where one did. */
export interface MatchedText {
  readonly text: string;
  readonly stop?: string;
}

/**
 * Looks for stop texts in a text that comes in pieces. What may be the beginning of a stop text is held back,
 * so that no part of one is ever let through. Where pieces end makes no difference: the stop text that is
 * complete first ends the text, the longest of those that are complete together.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  readonly #include: boolean;
  #held = "";

  /** @param stops texts of at least one character @param include whether the stop text is let through */
  constructor(stops: readonly string[], include: boolean) {
    this.#stops = stops;
    this.#include = include;
  }

  /** Takes the next piece. After a `stop` there is nothing left to take. */
  push(piece: string): MatchedText {
    const text = this.#held + piece;
    let end = Number.POSITIVE_INFINITY;
    let found: string | undefined;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0) continue;
      const after = at + stop.length;
      if (after < end || (after === end && stop.length > found!.length)) {
        end = after;
        found = stop;
      }
    }
    if (found !== undefined) {
      this.#held = "";
      return { text: text.slice(0, this.#include ? end : end - found.length), stop: found };
    }
    const held = this.#unfinished(text);
    this.#held = text.slice(text.length - held);
    return { text: text.slice(0, text.length - held) };
  }

  /** What is held back: the text ended without a stop text. */
  flush(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** The length of the longest end of the text with which a stop text begins. */
  #unfinished(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
