import { byteOfCharacter, type Tokenizer } from "../../data/index.ts";

/** The text and bytes of one token. */
export interface TokenText {
  /** The bytes as text, where they are whole characters; with replacement characters where they are not. */
  readonly text: string;
  readonly bytes: readonly number[];
  readonly special: boolean;
}

type Alphabet = "byte-level" | "sentencepiece" | "plain";

const absent: TokenText = { text: "", bytes: [], special: false };
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const byteToken = /^<0x([0-9A-Fa-f]{2})>$/;

/**
 * What single tokens stand for, from how the vocabulary writes them: `decode` cannot say, for it strips leading
 * spaces and joins bytes over tokens.
 */
export class TokenTexts {
  readonly #tokenizer: Tokenizer;
  readonly #known = new Map<number, TokenText>();
  #kind: { readonly alphabet: Alphabet; readonly special: ReadonlySet<number> } | undefined;

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** The text of a token; empty for an id that the tokenizer does not have. */
  of(id: number): TokenText {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const written = this.#tokenizer.idToToken(id);
    if (written === undefined) return absent;
    const { alphabet, special } = this.#describe();
    const isSpecial = special.has(id);
    const bytes = isSpecial ? [...encoder.encode(written)] : bytesOf(written, alphabet);
    const text = { text: decoder.decode(Uint8Array.from(bytes)), bytes, special: isSpecial };
    this.#known.set(id, text);
    return text;
  }

  /** Reads from `tokenizer.json` how it writes bytes, once it is asked. */
  #describe() {
    if (this.#kind !== undefined) return this.#kind;
    const definition = JSON.parse(this.#tokenizer.files["tokenizer.json"] ?? "{}") as {
      readonly decoder?: unknown;
      readonly added_tokens?: readonly { readonly id?: unknown; readonly special?: unknown }[];
    };
    const special = new Set<number>();
    for (const { id, special: isSpecial } of definition.added_tokens ?? []) {
      if (typeof id === "number" && isSpecial === true) special.add(id);
    }
    const written = JSON.stringify(definition.decoder ?? null);
    const alphabet = written.includes('"ByteLevel"')
      ? "byte-level"
      : written.includes("▁") || written.includes('"Metaspace"')
        ? "sentencepiece"
        : "plain";
    this.#kind = { alphabet, special };
    return this.#kind;
  }
}

function bytesOf(written: string, alphabet: Alphabet): number[] {
  if (alphabet === "plain") return [...encoder.encode(written)];
  if (alphabet === "sentencepiece") {
    const byte = byteToken.exec(written);
    return byte === null
      ? [...encoder.encode(written.replaceAll("▁", " "))]
      : [Number.parseInt(byte[1]!, 16)];
  }
  return [...written].flatMap((character) => byteOfCharacter(character) ?? [...encoder.encode(character)]);
}
