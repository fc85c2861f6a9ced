import { type TokenPieces, unfinishedBytes } from "./token_pieces.ts";
import type { Tokenizer } from "./tokenizer.ts";

const replacement = "\uFFFD";

/** Bytes of a UTF-8 character that can stand at the end of a text without completing it. */
const longestUnfinished = 3;

/** Tokens kept as context; decoders look no further back than a character or a space. */
const longestWindow = 64;

/** What turns ids into text, one after another. */
interface PieceStream {
  push(id: number): string;
  flush(): string;
}

/**
 * Turns a stream of token ids into text piece by piece. The pieces together are what `decode` gives
 * for all ids at once; a piece never ends within a UTF-8 character, however many tokens the character
 * is spread over.
 */
export class StreamDecoder {
  readonly #stream: PieceStream;

  /** `context` are the ids that came before, such as the prompt's; they are not emitted. */
  constructor(
    tokenizer: Tokenizer,
    options: { readonly context?: ArrayLike<number>; readonly skipSpecialTokens?: boolean } = {},
  ) {
    const context = Array.from(options.context ?? []);
    const skipSpecialTokens = options.skipSpecialTokens ?? true;
    const { pieces } = tokenizer;
    this.#stream =
      pieces === undefined
        ? new WindowDecoder(tokenizer, context, skipSpecialTokens)
        : new PieceDecoder(pieces, context, skipSpecialTokens);
  }

  /** The text that `id` completes; empty while a character is unfinished. */
  push(id: number): string {
    return this.#stream.push(id);
  }

  /** What is left at the end of the stream: an unfinished character as the replacement character. */
  flush(): string {
    return this.#stream.flush();
  }
}

const keepingMarks = new TextDecoder("utf-8", { ignoreBOM: true });
const droppingMarks = new TextDecoder();

/** Adds up the pieces of tokens; holds back only the bytes of an unfinished character. */
class PieceDecoder implements PieceStream {
  readonly #pieces: TokenPieces;
  readonly #skipSpecialTokens: boolean;
  #unfinished: Uint8Array | undefined;
  /** Whether the text is still empty. */
  #atStart = true;
  /** Whether the last tokens were bytes of which some have been emitted. */
  #withinBytes = false;

  constructor(pieces: TokenPieces, context: readonly number[], skipSpecialTokens: boolean) {
    this.#pieces = pieces;
    this.#skipSpecialTokens = skipSpecialTokens;
    const recent = context.slice(-longestWindow / 2);
    const adds = (id: number): boolean => {
      const piece = pieces.of(id);
      return !(piece.special && skipSpecialTokens) && piece.text !== "";
    };
    this.#atStart = !context.slice(0, -recent.length).some(adds);
    for (const id of recent) this.push(id);
  }

  push(id: number): string {
    const { special, bytes, text } = this.#pieces.of(id);
    if (special && this.#skipSpecialTokens) return "";
    if (bytes === undefined) {
      const before = this.#finish();
      this.#withinBytes = false;
      return before + this.#emit(text!);
    }
    if (this.#unfinished === undefined && text !== undefined && !this.#mayHaveMark(bytes)) {
      this.#withinBytes ||= bytes.length > 0;
      return this.#emit(text);
    }
    const all = this.#unfinished === undefined ? bytes : joined(this.#unfinished, bytes);
    const whole = all.length - unfinishedBytes(all);
    this.#unfinished = whole === all.length ? undefined : all.subarray(whole);
    return this.#decode(all.subarray(0, whole));
  }

  flush(): string {
    const rest = this.#finish();
    this.#atStart = true;
    this.#withinBytes = false;
    return rest;
  }

  /** Ends an unfinished character. */
  #finish(): string {
    if (this.#unfinished === undefined) return "";
    const bytes = this.#unfinished;
    this.#unfinished = undefined;
    return this.#decode(bytes);
  }

  #mayHaveMark(bytes: Uint8Array): boolean {
    return this.#pieces.dropsByteOrderMark && !this.#withinBytes && bytes[0] === 0xef;
  }

  #decode(bytes: Uint8Array): string {
    if (bytes.length === 0) return "";
    const decoder = this.#mayHaveMark(bytes) ? droppingMarks : keepingMarks;
    this.#withinBytes = true;
    return this.#emit(decoder.decode(bytes));
  }

  /** What of a piece is part of the text: all but a space at its beginning. */
  #emit(piece: string): string {
    if (!this.#atStart || piece === "") return piece;
    this.#atStart = false;
    return this.#pieces.stripsSpace && piece.startsWith(" ") ? piece.slice(1) : piece;
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

/**
 * For decoders that look at more than one token in ways of their own: each step decodes a short window that
 * reaches back before the new token, and emits what it adds.
 */
class WindowDecoder implements PieceStream {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecialTokens: boolean;
  #window: number[];
  /** Index in the window of the first token after the last point at which the text was whole. */
  #settled: number;
  /** Characters of the window's text that have been emitted. */
  #emitted: number;

  constructor(tokenizer: Tokenizer, context: readonly number[], skipSpecialTokens: boolean) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = skipSpecialTokens;
    this.#window = context.slice(-longestWindow / 2);
    this.#settled = this.#window.length;
    this.#emitted = this.#text().length;
  }

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
