import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { byteAlphabet, byteOfCharacter } from "./byte_level.ts";
import { StreamDecoder } from "./stream_decoder.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

/** Tokens of bytes as SentencePiece writes them: 0x00-0xff. */
const byteTokens = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);
const fused = [
  { type: "Replace", pattern: { String: "▁" }, content: " " },
  { type: "ByteFallback" },
  { type: "Fuse" },
];
const strip = { type: "Strip", content: " ", start: 1, stop: 0 };

function tokenizerOf(tokens: readonly string[], decoder: object, config: object = {}): Tokenizer {
  const added = (content: string, special: boolean) => ({
    id: tokens.indexOf(content),
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special,
  });
  return createTokenizer(
    JSON.stringify({
      added_tokens: [added("<s>", true), added("<tool>", false)],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder,
      model: {
        type: "BPE",
        unk_token: null,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: [],
      },
    }),
    JSON.stringify(config),
  );
}

const words = ["<s>", "<tool>", "▁", "▁▁", "a", "▁b", "é", "🐳", "▁鯨", "\uFFFD", "<0x4>", ...byteTokens];
const alphabet = ["<s>", "<tool>", ...byteAlphabet, "ĠĠ", "Ġthe", "ðŁ", "Ĳ³", "ãģ", "éĻ¯æ", "ï»¿"];
const pieceByPiece: readonly (readonly [string, Tokenizer])[] = [
  ["SentencePiece", tokenizerOf(words, { type: "Sequence", decoders: [...fused, strip] })],
  [
    "SentencePiece without a space before the text",
    tokenizerOf(words, { type: "Sequence", decoders: fused }),
  ],
  ["bytes", tokenizerOf(alphabet, { type: "ByteLevel", add_prefix_space: false, trim_offsets: true })],
];
const together: readonly (readonly [string, Tokenizer])[] = [
  ["spaces by Metaspace", tokenizerOf(["<s>", "<tool>", "▁a", "▁b", "c"], { type: "Metaspace" })],
  [
    "bytes, spaces tidied",
    tokenizerOf(alphabet, { type: "ByteLevel" }, { clean_up_tokenization_spaces: true }),
  ],
  [
    "SentencePiece with a decoder more",
    tokenizerOf(words, { type: "Sequence", decoders: [...fused, { type: "Strip", content: "a", start: 1 }] }),
  ],
];

/** Ids with runs of UTF-8, of stray bytes, and of whatever the vocabulary has. */
function idsFor(tokenizer: Tokenizer): fc.Arbitrary<number[]> {
  const byteLevel = tokenizer.tokenToId("Ġ") !== undefined;
  const tokenOfByte = byteLevel
    ? new Map(byteAlphabet.map((character) => [byteOfCharacter(character)!, character]))
    : new Map(byteTokens.entries());
  const idOfByte = (byte: number): number => tokenizer.tokenToId(tokenOfByte.get(byte)!)!;
  const any = fc.integer({ min: 0, max: tokenizer.vocabularySize - 1 });
  const bytes = (values: Iterable<number>): number[] => Array.from(values, idOfByte);
  const encoder = new TextEncoder();
  return fc
    .array(
      fc.oneof(
        any.map((id) => [id]),
        fc.constantFrom("é", "🐳🦄", "鯨の", "\uFEFFa", "\uFFFD").map((text) => bytes(encoder.encode(text))),
        fc
          .array(fc.constantFrom(0xef, 0xbb, 0xbf, 0xf0, 0x9f, 0xc3, 0xff, 0x41, 0xe0, 0x80), {
            maxLength: 6,
          })
          .map(bytes),
      ),
      { maxLength: 40 },
    )
    .map((parts) => parts.flat());
}

test("which tokenizers add up pieces", () => {
  for (const [name, tokenizer] of pieceByPiece) expect(tokenizer.pieces, name).toBeDefined();
  for (const [name, tokenizer] of together) expect(tokenizer.pieces, name).toBeUndefined();
});

describe.each(pieceByPiece)("%s", (_, tokenizer) => {
  const ids = idsFor(tokenizer);

  test("any ids: the pieces together are what decoding all at once gives, none with half a character", () => {
    fc.assert(
      fc.property(ids, fc.boolean(), (given, skipSpecialTokens) => {
        const decoder = new StreamDecoder(tokenizer, { skipSpecialTokens });
        // Twice: after its end, a decoder begins anew.
        for (let round = 0; round < 2; round++) {
          const pieces = given.map((id) => decoder.push(id));
          for (const piece of pieces) expect(piece.isWellFormed()).toBe(true);
          expect(pieces.join("") + decoder.flush()).toBe(tokenizer.decode(given, { skipSpecialTokens }));
        }
      }),
      { numRuns: 1500, seed: 5 },
    );
  });

  test("any ids after any context that ends with a character", () => {
    fc.assert(
      fc.property(ids, ids, fc.boolean(), (context, given, skipSpecialTokens) => {
        const before = tokenizer.decode(context, { skipSpecialTokens });
        fc.pre(!before.endsWith("\uFFFD"));
        const decoder = new StreamDecoder(tokenizer, { context, skipSpecialTokens });
        const text = given.map((id) => decoder.push(id)).join("") + decoder.flush();
        expect(before + text).toBe(tokenizer.decode([...context, ...given], { skipSpecialTokens }));
      }),
      { numRuns: 1000, seed: 6 },
    );
  });

  test("a piece waits for the last byte of a character and no longer", () => {
    const whale =
      tokenizer.tokenToId("ðŁ") === undefined
        ? [0xf0, 0x9f, 0x90, 0xb3].map((byte) => tokenizer.tokenToId(byteTokens[byte]!)!)
        : ["ðŁ", "Ĳ³"].map((token) => tokenizer.tokenToId(token)!);
    const decoder = new StreamDecoder(tokenizer);
    const pieces = [...whale, ...whale].map((id) => decoder.push(id));
    const once = [...whale.slice(1).map(() => ""), "🐳"];
    expect(pieces).toEqual([...once, ...once]);
    // An unfinished one within the context is finished.
    const rest = new StreamDecoder(tokenizer, { context: whale.slice(0, -1) });
    expect(rest.push(whale.at(-1)!)).toBe("🐳");
  });

  test("a context of special tokens alone, however long, is no text", () => {
    const begin = tokenizer.tokenToId("<s>")!;
    const text = (context: readonly number[], ...tokens: readonly string[]): string => {
      const decoder = new StreamDecoder(tokenizer, { context });
      return tokens.map((token) => decoder.push(tokenizer.tokenToId(token)!)).join("");
    };
    const space = tokenizer.tokenToId("▁") === undefined ? "Ġ" : "▁";
    const letter = tokenizer.tokenToId("a")!;
    const specials = new Array<number>(100).fill(begin);
    expect(text(specials, space, "a")).toBe(tokenizer.decode([tokenizer.tokenToId(space)!, letter]));
    expect(text([letter, ...specials], space, "a")).toBe(" a");
  });

  test("ids that are no tokens add nothing", () => {
    const decoder = new StreamDecoder(tokenizer);
    const letter = tokenizer.tokenToId("a")!;
    expect([letter, 10 ** 6, letter].map((id) => decoder.push(id))).toEqual(["a", "", "a"]);
  });
});

test.each(together)("%s: decoded in windows, the same text", (_, tokenizer) => {
  const text = (ids: readonly number[]): string => {
    const decoder = new StreamDecoder(tokenizer);
    return ids.map((id) => decoder.push(id)).join("") + decoder.flush();
  };
  const tokens = ["a", "b", "c", "▁a", "▁b", "é", "Ġ", "Ġthe", "é", "<tool>"];
  const known = tokens.flatMap((token) => tokenizer.tokenToId(token) ?? []);
  for (let start = 0; start < known.length; start++) {
    const ids = [...known.slice(start), ...known];
    expect(text(ids)).toBe(tokenizer.decode(ids));
  }
});
