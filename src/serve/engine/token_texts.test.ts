import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { storyFolder } from "../../../test/support/serving.ts";
import { loadTokenizer, type Tokenizer, trainTokenizer } from "../../data/index.ts";
import { TokenTexts } from "./token_texts.ts";

const utf8 = (ids: readonly number[], texts: TokenTexts): string =>
  Buffer.from(ids.flatMap((id) => [...texts.of(id).bytes])).toString("utf8");

/** A tokenizer of a few tokens whose `tokenizer.json` says how they are written. */
function written(
  vocabulary: readonly string[],
  decoder: unknown,
  special: readonly number[] = [],
): Tokenizer {
  const definition = { decoder, added_tokens: special.map((id) => ({ id, special: true })) };
  return {
    vocabularySize: vocabulary.length,
    identity: "written",
    encode: () => [],
    decode: () => "",
    tokenToId: (token) => vocabulary.indexOf(token),
    idToToken: (id) => vocabulary[id],
    files: { "tokenizer.json": JSON.stringify(definition) },
  };
}

describe("the bytes of a text's tokens are the bytes of the text", () => {
  const text = "Grüße, 世界! It's 🎉 time.";

  test("byte-level vocabularies", async () => {
    const tokenizer = await trainTokenizer([text, "something else"], { vocabularySize: 300 });
    const texts = new TokenTexts(tokenizer);
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    expect(utf8(ids, texts)).toBe(text);
    expect(ids.every((id) => !texts.of(id).special)).toBe(true);
    // Half a character has bytes and no text of its own.
    const half = ids.map((id) => texts.of(id)).find(({ bytes }) => bytes.length === 1 && bytes[0]! >= 0x80)!;
    expect(half.text).toBe("\uFFFD");
  });

  test.skipIf(!existsSync(storyFolder))("vocabularies of SentencePiece", async () => {
    const tokenizer = await loadTokenizer(storyFolder);
    const texts = new TokenTexts(tokenizer);
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    // It begins texts with a space.
    expect(utf8(ids, texts)).toBe(` ${text}`);
  });

  test("single tokens", () => {
    const sentencepiece = { type: "Sequence", decoders: [{ type: "Replace", pattern: { String: "▁" } }] };
    const texts = new TokenTexts(written(["<s>", "<0xE4>", "▁a▁b", "▁"], sentencepiece, [0]));
    expect(texts.of(0)).toEqual({ text: "<s>", bytes: [60, 115, 62], special: true });
    expect(texts.of(1)).toEqual({ text: "\uFFFD", bytes: [0xe4], special: false });
    expect(texts.of(2)).toEqual({ text: " a b", bytes: [32, 97, 32, 98], special: false });
    expect(texts.of(99)).toEqual({ text: "", bytes: [], special: false });
    const plain = new TokenTexts(written(["▁a", "<0xE4>"], null));
    expect([plain.of(0).text, plain.of(1).text]).toEqual(["▁a", "<0xE4>"]);
  });
});
