import type { Piece, TokenLogprob } from "./types.ts";

interface PendingPiece {
  text: string;
  readonly tokens: number[];
  logprobs: TokenLogprob[] | undefined;
  ending: Pick<Piece, "finishReason" | "stopReason" | "error">;
}

/**
 * The pieces of one request on their way to its consumer. Pushing never waits: what a slow consumer has not
 * taken is joined into one piece an answer, so that there are never more than `n` pieces in the queue.
 */
export class PieceQueue implements AsyncIterator<Piece, undefined, undefined> {
  readonly #pending = new Map<number, PendingPiece>();
  readonly #waiting: ((result: IteratorResult<Piece, undefined>) => void)[] = [];
  readonly #onReturn: () => void;
  #closed = false;

  /** @param onReturn called when the consumer stops before the end. */
  constructor(onReturn: () => void) {
    this.#onReturn = onReturn;
  }

  /** Adds a piece; nothing after `close` or `return`. */
  push(piece: Piece): void {
    if (this.#closed) return;
    const { index, text, tokens, logprobs, ...ending } = piece;
    const present = this.#pending.get(index);
    if (present === undefined) {
      const own = logprobs === undefined ? undefined : [...logprobs];
      this.#pending.set(index, { text, tokens: [...tokens], logprobs: own, ending });
    } else {
      present.text += text;
      present.tokens.push(...tokens);
      if (logprobs !== undefined) present.logprobs = [...(present.logprobs ?? []), ...logprobs];
      present.ending = { ...present.ending, ...ending };
    }
    this.#serve();
  }

  /** No more pieces will come; those that are here are still given. */
  close(): void {
    this.#closed = true;
    this.#serve();
  }

  next(): Promise<IteratorResult<Piece, undefined>> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#serve();
    });
  }

  async return(): Promise<IteratorResult<Piece, undefined>> {
    const early = !this.#closed;
    this.#pending.clear();
    this.close();
    if (early) this.#onReturn();
    return { done: true, value: undefined };
  }

  #serve(): void {
    while (this.#waiting.length > 0) {
      const first = this.#pending.entries().next();
      if (first.done !== true) {
        const [index, { text, tokens, logprobs, ending }] = first.value;
        this.#pending.delete(index);
        const value = { index, text, tokens, ...(logprobs === undefined ? {} : { logprobs }), ...ending };
        this.#waiting.shift()!({ done: false, value });
      } else if (this.#closed) {
        this.#waiting.shift()!({ done: true, value: undefined });
      } else return;
    }
  }
}
