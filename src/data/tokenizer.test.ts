import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StreamDecoder } from "./stream_decoder.ts";
import {
  checkTokenIds,
  checkVocabulary,
  createTokenizer,
  createTokenizerFrom,
  loadTokenizer,
  saveTokenizer,
  type Tokenizer,
} from "./tokenizer.ts";

const storiesFolder = resolve(import.meta.dirname, "../../../shared/data/stories260K");
const storiesReason = existsSync(storiesFolder) ? "" : ` (skipped: ${storiesFolder} is absent)`;

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-tokenizer-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A SentencePiece-like tokenizer small enough to check by hand: bytes 0x00-0xff are ids 2-257. */
function byteFallbackTokenizer(config: Record<string, unknown> = {}): Tokenizer {
  const tokens = [
    "<s>",
    "</s>",
    ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`),
    "▁",
    "a",
    "b",
    "ab",
  ];
  const special = (id: number) => ({
    id,
    content: tokens[id],
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return createTokenizer(
    JSON.stringify({
      added_tokens: [special(0), special(1)],
      normalizer: {
        type: "Sequence",
        normalizers: [
          { type: "Prepend", prepend: "▁" },
          { type: "Replace", pattern: { String: " " }, content: "▁" },
        ],
      },
      pre_tokenizer: null,
      post_processor: null,
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: "▁" }, content: " " },
          { type: "ByteFallback" },
          { type: "Fuse" },
          { type: "Strip", content: " ", start: 1, stop: 0 },
        ],
      },
      model: {
        type: "BPE",
        unk_token: null,
        byte_fallback: true,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: ["a b"],
      },
    }),
    JSON.stringify({ bos_token: "<s>", eos_token: { content: "</s>" }, ...config }),
  );
}

describe("a tokenizer from its files", () => {
  test("has the ids that the files give", () => {
    const tokenizer = byteFallbackTokenizer();
    expect(tokenizer.vocabularySize).toBe(262);
    expect([tokenizer.beginToken, tokenizer.endToken]).toEqual([0, 1]);
    // "▁" is 258, "ab" 261, "a" 259, and "é" is the bytes c3 a9.
    expect(tokenizer.encode("ab aé")).toEqual([258, 261, 258, 259, 2 + 0xc3, 2 + 0xa9]);
    expect(tokenizer.decode([0, 258, 261, 258, 259, 2 + 0xc3, 2 + 0xa9, 1])).toBe("ab aé");
    expect(tokenizer.decode([0, 258, 259, 1], { skipSpecialTokens: false })).toContain("</s>");
    expect(tokenizer.decode([])).toBe("");
    expect([tokenizer.tokenToId("ab"), tokenizer.idToToken(261)]).toEqual([261, "ab"]);
  });

  test("adds begin and end tokens that only the config asks for", () => {
    const tokenizer = byteFallbackTokenizer({ add_bos_token: true, add_eos_token: true });
    expect(tokenizer.encode("a")).toEqual([0, 258, 259, 1]);
    expect(tokenizer.encode("a", { addSpecialTokens: false })).toEqual([258, 259]);
  });

  test("keeps the spaces before punctuation unless the config says otherwise", () => {
    const ids = byteFallbackTokenizer().encode("a .");
    expect(byteFallbackTokenizer().decode(ids)).toBe("a .");
    expect(byteFallbackTokenizer({ clean_up_tokenization_spaces: true }).decode(ids)).toBe("a.");
  });

  test("is the same after saving and loading", async () => {
    const tokenizer = byteFallbackTokenizer();
    await saveTokenizer(tokenizer, join(folder, "saved"));
    const loaded = await loadTokenizer(join(folder, "saved"));
    expect(loaded.identity).toBe(tokenizer.identity);
    expect(loaded.encode("b ab")).toEqual([258, 260, 258, 261]);
    expect(byteFallbackTokenizer({ add_bos_token: true }).identity).not.toBe(tokenizer.identity);
  });

  test("that cannot be used says which file is at fault", async () => {
    await expect(loadTokenizer(join(folder, "nowhere"))).rejects.toThrow(/no tokenizer\.json[\s\S]*nowhere/);
    const broken = join(folder, "broken");
    await saveTokenizer(byteFallbackTokenizer(), broken);
    const whole = await readFile(join(broken, "tokenizer.json"), "utf8");
    await writeFile(join(broken, "tokenizer.json"), whole.slice(0, 100));
    await expect(loadTokenizer(broken)).rejects.toThrow(/not valid JSON[\s\S]*broken.tokenizer\.json/);
    await writeFile(join(broken, "tokenizer.json"), "[]");
    await expect(loadTokenizer(broken)).rejects.toThrow(/does not hold a JSON object/);
    await writeFile(join(broken, "tokenizer.json"), JSON.stringify({ model: { type: "BPE" } }));
    await expect(loadTokenizer(broken)).rejects.toThrow(/does not describe a usable tokenizer/);
    expect(() => byteFallbackTokenizer({ bos_token: "<begin>" })).toThrow(
      /"bos_token" is not a token[\s\S]*<begin>/,
    );
  });

  test("whose vocabulary exceeds the model's is refused", () => {
    const tokenizer = byteFallbackTokenizer();
    expect(() => checkVocabulary(tokenizer, 262)).not.toThrow();
    expect(() => checkVocabulary(tokenizer, 261)).toThrow(
      /exceeds the model's[\s\S]*0 to 260[\s\S]*up to 261 \("ab"\)[\s\S]*at least 262/,
    );
  });

  test("ids out of range are named with their place", () => {
    expect(() => checkTokenIds([0, 9], 10, "x")).not.toThrow();
    expect(() => checkTokenIds([0, 10], 10, "ids.json")).toThrow(
      /ids\.json[\s\S]*0 to 9[\s\S]*10 \(token 1\)/,
    );
    expect(() => checkTokenIds([-1], 10, "x")).toThrow(/-1 \(token 0\)/);
    expect(() => checkTokenIds([0.5], 10, "x")).toThrow(/0\.5/);
  });
});

test("a chat template comes from the config, one of several by name, or from a file of its own", async () => {
  const { files } = byteFallbackTokenizer();
  const definition = JSON.parse(files["tokenizer.json"]!) as Record<string, unknown>;
  const paths = { path: "tokenizer.json", configPath: "tokenizer_config.json" };
  const templateOf = (template: unknown): string | undefined =>
    createTokenizerFrom(definition, { chat_template: template }, paths).chatTemplate;
  expect(templateOf("{{ one }}")).toBe("{{ one }}");
  const several = [
    { name: "tool_use", template: "{{ tools }}" },
    { name: "default", template: "{{ plain }}" },
  ];
  expect(templateOf(several)).toBe("{{ plain }}");
  expect(templateOf(undefined)).toBeUndefined();
  const path = await mkdtemp(join(tmpdir(), "slipstream-template-"));
  try {
    for (const [name, text] of Object.entries(files)) await writeFile(join(path, name), text);
    await writeFile(join(path, "chat_template.jinja"), "{{ file }}");
    const loaded = await loadTokenizer(path);
    expect(loaded.chatTemplate).toBe("{{ file }}");
    expect(loaded.files["chat_template.jinja"]).toBe("{{ file }}");
    expect(loaded.encode("ab")).toEqual(createTokenizerFrom(definition, {}, paths).encode("ab"));
  } finally {
    await rm(path, { recursive: true });
  }
});

describe("StreamDecoder", () => {
  const tokenizer = byteFallbackTokenizer();
  const idsOfBytes = (...bytes: number[]) => bytes.map((byte) => byte + 2);

  test("waits for the last byte of a character", () => {
    const decoder = new StreamDecoder(tokenizer);
    // U+1F433 is f0 9f 90 b3.
    const pieces = [258, 259, ...idsOfBytes(0xf0, 0x9f, 0x90, 0xb3), 258, 261].map((id) => decoder.push(id));
    expect(pieces).toEqual(["", "a", "", "", "", "🐳", " ", "ab"]);
    expect(decoder.flush()).toBe("");
  });

  test("continues after a context without repeating it or losing a space", () => {
    const decoder = new StreamDecoder(tokenizer, { context: [0, 258, 261] });
    expect([258, 259].map((id) => decoder.push(id)).join("")).toBe(" a");
  });

  test("lets an invalid byte pass as one replacement character", () => {
    const decoder = new StreamDecoder(tokenizer);
    const ids = [258, 259, ...idsOfBytes(0xff), 260, ...idsOfBytes(0xe2, 0x82)];
    const text = ids.map((id) => decoder.push(id)).join("");
    expect(text).toBe("a\uFFFDb");
    expect(decoder.flush()).toBe("\uFFFD");
  });

  test("gives the same text as decoding at once, over long runs of split characters", () => {
    const text = `${"鯨の白さ🐳".repeat(60)} end`;
    const ids = tokenizer.encode(text);
    const decoder = new StreamDecoder(tokenizer);
    const pieces = ids.map((id) => decoder.push(id));
    expect(pieces.join("") + decoder.flush()).toBe(text);
    expect(pieces.every((piece) => !piece.includes("\uFFFD") && piece.isWellFormed())).toBe(true);
  });
});

describe.skipIf(storiesReason !== "")(`stories260K${storiesReason}`, () => {
  test("encodes as SentencePiece does", async () => {
    const tokenizer = await loadTokenizer(storiesFolder);
    expect(tokenizer.vocabularySize).toBe(512);
    expect([tokenizer.beginToken, tokenizer.endToken]).toEqual([1, 2]);
    const ids = tokenizer.encode("Once upon a time");
    expect(ids.map((id) => tokenizer.idToToken(id))).toEqual(["<s>", "▁Once", "▁upon", "▁a", "▁time"]);
    expect(tokenizer.encode("")).toEqual([1]);
  });

  test("decodes what it encodes, at once and as a stream", async () => {
    const tokenizer = await loadTokenizer(storiesFolder);
    const text = "Once upon a time, Zoë saw a 🐳.\n\nIt said:  “hello” .";
    const ids = tokenizer.encode(text);
    expect(tokenizer.decode(ids)).toBe(text);
    const decoder = new StreamDecoder(tokenizer);
    expect(ids.map((id) => decoder.push(id)).join("") + decoder.flush()).toBe(text);
  });
});
