import { byteOfCharacter } from "./byte_level.ts";

/** What one token adds to a text. */
export interface TokenPiece {
  /** Whether it may be left out as a special token. */
  readonly special: boolean;
  /**
   * Its bytes, which make characters together with those of its neighbours; undefined for a token that stands by
   * itself: a character that is unfinished before it stays so.
   */
  readonly bytes: Uint8Array | undefined;
  /** Its text; undefined where its bytes alone are not whole characters. */
  readonly text: string | undefined;
}

/** How a tokenizer's tokens make up a text, for tokenizers whose texts are what their tokens add, one by one. */
export interface TokenPieces {
  /** What an id adds; the same object every time. */
  of(id: number): TokenPiece;
  /** Whether a space at the beginning of a text is left out. */
  readonly stripsSpace: boolean;
  /** Whether a byte-order mark is left out where tokens of bytes begin. */
  readonly dropsByteOrderMark: boolean;
}

/** The parts of `tokenizer.json` that are read here. */
interface Definition {
  readonly model?: {
    readonly type?: unknown;
    readonly unk_token?: unknown;
    readonly end_of_word_suffix?: unknown;
  };
  readonly decoder?: unknown;
  readonly added_tokens?: readonly { readonly content: string; readonly special?: unknown }[];
}

/** The parts of `tokenizer_config.json` that are read here. */
interface Config {
  readonly clean_up_tokenization_spaces?: unknown;
  readonly additional_special_tokens?: unknown;
}

const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const replaceSpaces = { type: "Replace", pattern: { String: "▁" }, content: " " };
const stripSpace = { type: "Strip", content: " ", start: 1, stop: 0 };

/** The decoder's kind, where it is one whose tokens add to the text one by one. */
function kindOf(decoder: unknown): "byte-level" | "sentencepiece" | "sentencepiece-stripped" | undefined {
  if (typeof decoder !== "object" || decoder === null || !("type" in decoder)) return undefined;
  if (decoder.type === "ByteLevel") return "byte-level";
  if (decoder.type !== "Sequence" || !("decoders" in decoder)) return undefined;
  const fused: readonly object[] = [replaceSpaces, { type: "ByteFallback" }, { type: "Fuse" }];
  const same = (expected: readonly object[]): boolean => sameJson(decoder.decoders, expected);
  if (same(fused)) return "sentencepiece";
  return same([...fused, stripSpace]) ? "sentencepiece-stripped" : undefined;
}

/** Whether two JSON values are equal, in whatever order their keys are. */
function sameJson(a: unknown, b: unknown): boolean {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b;
  const [left, right] = [Object.entries(a), new Map(Object.entries(b))];
  return left.length === right.size && left.every(([key, value]) => sameJson(value, right.get(key)));
}

/**
 * The pieces of a tokenizer of pairs of bytes (GPT-2's way of writing bytes) or of SentencePiece's with bytes as
 * fallback; undefined for any other, which has to decode tokens together.
 */
export function tokenPieces(
  definition: Definition,
  config: Config,
  idToToken: (id: number) => string | undefined,
): TokenPieces | undefined {
  const { model, decoder, added_tokens: added = [] } = definition;
  const kind = kindOf(decoder);
  if (kind === undefined || model?.type !== "BPE") return undefined;
  if (typeof model.end_of_word_suffix === "string" && model.end_of_word_suffix !== "") return undefined;
  if (config.clean_up_tokenization_spaces === true) return undefined;
  const unknown = typeof model.unk_token === "string" ? model.unk_token : "";
  const contents = new Set(added.map(({ content }) => content));
  const special = new Set<unknown>(
    added.filter((token) => token.special === true).map(({ content }) => content),
  );
  const more = config.additional_special_tokens;
  if (Array.isArray(more)) for (const content of more) special.add(content);
  const pieces: (TokenPiece | undefined)[] = [];

  const make = (token: string): TokenPiece => {
    if (kind === "byte-level") {
      if (contents.has(token)) return { special: special.has(token), bytes: undefined, text: token };
      // A character that stands for no byte is read as zero, as Hugging Face's decoder in JavaScript does.
      const bytes = Uint8Array.from([...token], (character) => byteOfCharacter(character) ?? 0);
      return { special: special.has(token), bytes, text: wholeText(bytes) };
    }
    const text = token.replaceAll("▁", " ");
    const byte = text.length === 6 && text.startsWith("<0x") && text.endsWith(">") ? text.slice(3, 5) : "";
    const value = Number.parseInt(byte, 16);
    if (Number.isNaN(value)) return { special: special.has(token), bytes: undefined, text };
    const bytes = Uint8Array.of(value);
    return { special: special.has(token), bytes, text: wholeText(bytes) };
  };
  return {
    of(id) {
      const known = pieces[id];
      if (known !== undefined) return known;
      const piece = make(idToToken(id) ?? unknown);
      // Ids that are none are not kept: there is no end of them.
      if (idToToken(id) !== undefined) pieces[id] = piece;
      return piece;
    },
    stripsSpace: kind === "sentencepiece-stripped",
    dropsByteOrderMark: kind !== "byte-level",
  };
}

/** The text of bytes that are whole characters. */
function wholeText(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Bytes of a character at the end of UTF-8 that more bytes may complete. */
export function unfinishedBytes(bytes: Uint8Array): number {
  for (let count = 1; count <= Math.min(3, bytes.length); count++) {
    const byte = bytes[bytes.length - count]!;
    if (byte < 0x80) return 0;
    if (byte < 0xc0) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    return length > count ? count : 0;
  }
  return 0;
}
