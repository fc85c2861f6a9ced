import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { InternalError, SlipstreamError } from "../../base/errors.ts";
import { type GgufEntry, openGguf, writeGguf } from "../../checkpoint/gguf/index.ts";
import type { JsonObject } from "../../checkpoint/index.ts";
import { createTokenizer, type Tokenizer, trainTokenizer } from "../../data/index.ts";
import { loadModelTokenizer } from "../tokenizer.ts";
import { mergesByScore, scoresOfMerges } from "./sentencepiece.ts";
import { tokenizerEntries } from "./tokenizer_entries.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-gguf-tokenizer-"));
afterAll(() => rmSync(folder, { recursive: true }));

let count = 0;
async function write(entries: ReadonlyMap<string, GgufEntry>): Promise<string> {
  const path = join(folder, `${count++}.gguf`);
  await writeGguf(path, entries, []);
  return path;
}

const bytes = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);
const special = ["<unk>", "<s>", "</s>"];

/** A SentencePiece vocabulary; the first piece has the best score. */
function sentencePiece(pieces: readonly string[], more: [string, GgufEntry][] = []): Map<string, GgufEntry> {
  const tokens = [...special, ...bytes, ...pieces];
  return new Map<string, GgufEntry>([
    ["tokenizer.ggml.model", { type: "string", value: "llama" }],
    ["tokenizer.ggml.tokens", { type: "strings", value: tokens }],
    ["tokenizer.ggml.scores", { type: "float32s", value: tokens.map((_, id) => -id) }],
    [
      "tokenizer.ggml.token_type",
      { type: "int32s", value: tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1)) },
    ],
    ["tokenizer.ggml.bos_token_id", { type: "uint32", value: 1 }],
    ["tokenizer.ggml.eos_token_id", { type: "uint32", value: 2 }],
    ["tokenizer.ggml.unknown_token_id", { type: "uint32", value: 0 }],
    ...more,
  ]);
}

const tokensOf = (tokenizer: Tokenizer, text: string): (string | undefined)[] =>
  tokenizer.encode(text).map((id) => tokenizer.idToToken(id));

describe("SentencePiece vocabularies", () => {
  test("merge what scores best first, wherever it is cut", async () => {
    // By hand: of "▁abc" the best pair is b+c; then ▁+a; then ▁a+bc, which is a piece though ▁ab is none.
    const pieces = ["bc", "▁a", "▁abc", "ab", "▁", "a", "b", "c"];
    const tokenizer = await loadModelTokenizer(await write(sentencePiece(pieces)));
    expect(tokensOf(tokenizer, "abc")).toEqual(["<s>", "▁abc"]);
    expect(tokensOf(tokenizer, "ab c")).toEqual(["<s>", "▁a", "b", "▁", "c"]);
    expect(tokensOf(tokenizer, "abab")).toEqual(["<s>", "▁a", "b", "ab"]);
    expect(tokenizer.beginToken).toBe(1);
    expect(tokenizer.endToken).toBe(2);
  });

  test("write characters that are no pieces as bytes, and read them back", async () => {
    const tokenizer = await loadModelTokenizer(await write(sentencePiece(["▁", "a"])));
    expect(tokensOf(tokenizer, "aé🙂")).toEqual([
      ...["<s>", "▁", "a", "<0xC3>", "<0xA9>"],
      ...["<0xF0>", "<0x9F>", "<0x99>", "<0x82>"],
    ]);
    expect(tokenizer.decode(tokenizer.encode("aé🙂 a"))).toBe("aé🙂 a");
  });

  test("leave out the space and the begin token where the file says so", async () => {
    const plain = sentencePiece(
      ["▁", "a"],
      [
        ["tokenizer.ggml.add_space_prefix", { type: "bool", value: false }],
        ["tokenizer.ggml.add_bos_token", { type: "bool", value: false }],
        ["tokenizer.ggml.add_eos_token", { type: "bool", value: true }],
      ],
    );
    const tokenizer = await loadModelTokenizer(await write(plain));
    expect(tokensOf(tokenizer, "a a")).toEqual(["a", "▁", "a", "</s>"]);
    expect(tokenizer.decode(tokenizer.encode("a a"))).toBe("a a");
  });

  test("cut text at control tokens and tokens of users; only the first are special", async () => {
    const entries = sentencePiece(["▁", "a", "<|x|>"]);
    const types = entries.get("tokenizer.ggml.token_type")!.value as ArrayLike<number>;
    const last = types.length - 1;
    const value = Array.from(types, (type, id) => (id === last ? 4 : type));
    entries.set("tokenizer.ggml.token_type", { type: "int32s", value });
    const tokenizer = await loadModelTokenizer(await write(entries));
    expect(tokensOf(tokenizer, "a<|x|>a</s>")).toEqual(["<s>", "▁", "a", "<|x|>", "▁", "a", "</s>"]);
    expect(tokenizer.decode(tokenizer.encode("a<|x|></s>"))).toBe("a<|x|>");
  });

  test("scores of merges give the same merges back", () => {
    const tokens = ["a", "b", "c", "ab", "abc", "bc"];
    const scores = scoresOfMerges(tokens, [
      ["b", "c"],
      ["a", "b"],
      ["a", "bc"],
    ]);
    expect([...scores]).toEqual([-4, -4, -4, -2, -3, -1]);
    expect(mergesByScore(tokens, scores, () => true)).toEqual([
      ["b", "c"],
      ["a", "b"],
      ["a", "bc"],
      ["ab", "c"],
    ]);
  });
});

const text =
  "Call me Ishmael. It's 2024, isn't it?\n\n  Ünïcode — 世界 🙂 and    spaces\tTabs don't  1234567 x.";

/** A tokenizer.json with another pre-tokenizer. */
function withPreTokenizer(
  tokenizer: Tokenizer,
  preTokenizer: object,
  normalizer: object | null = null,
  ignoreMerges = false,
): Tokenizer {
  const definition = JSON.parse(tokenizer.files["tokenizer.json"]!) as Record<string, unknown>;
  const model = { model: { ...(definition.model as object), ignore_merges: ignoreMerges } };
  return createTokenizer(
    JSON.stringify({ ...definition, pre_tokenizer: preTokenizer, normalizer, ...model }),
    tokenizer.files["tokenizer_config.json"]!,
  );
}

async function throughGguf(tokenizer: Tokenizer): Promise<Tokenizer> {
  const entries = tokenizerEntries({
    definition: JSON.parse(tokenizer.files["tokenizer.json"]!) as JsonObject,
    config: JSON.parse(tokenizer.files["tokenizer_config.json"]!) as JsonObject,
    chatTemplate: "{{ messages }}",
    model: {},
    vocabularySize: tokenizer.vocabularySize + 3,
    where: "tokenizer.json",
  });
  return await loadModelTokenizer(await write(entries));
}

describe("byte-level vocabularies", () => {
  const trained = trainTokenizer([text, text, "the quick brown fox the quick"], { vocabularySize: 400 });
  const split = (pattern: string): object => ({
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  });
  // The patterns as the models' own tokenizer.json have them.
  const llama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const qwen2 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

  test("a trained tokenizer comes back through a GGUF file", async () => {
    const original = await trained;
    const read = await throughGguf(original);
    expect(read.encode(text)).toEqual(original.encode(text));
    expect(read.decode(read.encode(text))).toBe(text);
    expect(read.beginToken).toBe(original.beginToken);
    expect(read.chatTemplate).toBe("{{ messages }}");
    // Tokens of the model that the tokenizer does not have.
    expect(read.vocabularySize).toBe(original.vocabularySize + 3);
  });

  test.each([
    ["llama-bpe", llama3, null],
    ["qwen2", qwen2, { type: "NFC" }],
  ])("%s is recognised by its pattern", async (name, pattern, normalizer) => {
    const original = withPreTokenizer(await trained, split(pattern), normalizer, name === "llama-bpe");
    const read = await throughGguf(original);
    await using file = await openGguf(join(folder, `${count - 1}.gguf`));
    expect(file.metadata.need("tokenizer.ggml.pre", "string")).toBe(name);
    for (const sample of [text, "a1234567b", "I'LL it's", "e\u0301"]) {
      expect(read.encode(sample)).toEqual(original.encode(sample));
    }
  });

  test("another pattern is refused, with the known ones", async () => {
    const other = withPreTokenizer(await trained, split("\\p{L}+"));
    await expect(throughGguf(other)).rejects.toThrow(
      /cannot hold this tokenizer[\s\S]*gpt-2, llama-bpe, qwen2, tekken/,
    );
  });
});

describe("refuses", () => {
  const broken = async (key: string, entry: GgufEntry | undefined): Promise<string> => {
    const entries = sentencePiece(["▁", "a"]);
    if (entry === undefined) entries.delete(key);
    else entries.set(key, entry);
    return await loadModelTokenizer(await write(entries)).then(
      () => "",
      (error: Error) => error.message,
    );
  };
  test.each<[string, GgufEntry | undefined, RegExp]>([
    ["tokenizer.ggml.model", undefined, /has no tokenizer[\s\S]*token ids/],
    ["tokenizer.ggml.model", { type: "string", value: "t5" }, /llama \(SentencePiece\) or gpt2[\s\S]*t5/],
    ["tokenizer.ggml.scores", undefined, /"tokenizer.ggml.scores"[\s\S]*no such key/],
    ["tokenizer.ggml.scores", { type: "float32s", value: [1, 2] }, /261 scores[\s\S]*2/],
    ["tokenizer.ggml.token_type", { type: "int32s", value: [1] }, /261 types[\s\S]*1/],
    ["tokenizer.ggml.tokens", { type: "uint32", value: 5 }, /a list of strings[\s\S]*5/],
    ["tokenizer.ggml.bos_token_id", { type: "uint32", value: 999 }, /a token below 261[\s\S]*999/],
  ])("%s %#", async (key, entry, message) => {
    expect(await broken(key, entry)).toMatch(message);
  });

  test("an unknown pre-tokenizer and a merge of one token", async () => {
    const entries = new Map<string, GgufEntry>([
      ["tokenizer.ggml.model", { type: "string", value: "gpt2" }],
      ["tokenizer.ggml.pre", { type: "string", value: "unheard-of" }],
      ["tokenizer.ggml.tokens", { type: "strings", value: ["a", "b", "ab"] }],
      ["tokenizer.ggml.merges", { type: "strings", value: ["ab"] }],
    ]);
    await expect(write(entries).then(loadModelTokenizer)).rejects.toThrow(/llama-bpe[\s\S]*"unheard-of"/);
    entries.set("tokenizer.ggml.pre", { type: "string", value: "gpt-2" });
    await expect(write(entries).then(loadModelTokenizer)).rejects.toThrow(/two tokens in merge 0[\s\S]*"ab"/);
  });
});

test("random damage ends in a message, never in a fault of the program or a hang", async () => {
  const whole = readFileSync(await write(sentencePiece(["bc", "▁a", "▁abc", "▁", "a", "b", "c"])));
  const path = join(folder, "damaged.gguf");
  const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(255));
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      const bytes = Buffer.from(whole);
      for (const [at, value] of changes) bytes[at] = value;
      writeFileSync(path, bytes);
      try {
        const tokenizer = await loadModelTokenizer(path);
        tokenizer.decode(tokenizer.encode("abc a"));
      } catch (cause) {
        expect(cause).toBeInstanceOf(SlipstreamError);
        expect(cause).not.toBeInstanceOf(InternalError);
      }
    }),
    { numRuns: 400 },
  );
});

const story = join(dirname(fileURLToPath(import.meta.url)), "../../../../shared/data/stories260K");
test.skipIf(!existsSync(story))("stories260K's tokenizer comes back through a GGUF file", async () => {
  const read = (name: string): string => readFileSync(join(story, name), "utf8");
  const original = createTokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
  const through = await throughGguf(original);
  const stories =
    "Once upon a time, there was a little girl named Lily. She didn't  like\nthe 3 big dogs! Ünï 🙂";
  for (const sample of [stories, "", " ", "a", " a  b", "<s>x</s> y", "\n\n", "the the the"]) {
    expect(through.encode(sample)).toEqual(original.encode(sample));
    expect(through.decode(through.encode(sample))).toBe(original.decode(original.encode(sample)));
  }
});
