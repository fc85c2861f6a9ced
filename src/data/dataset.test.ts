import { appendFile, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { trainTokenizer } from "./bpe_trainer.ts";
import { type DatasetOptions, openDataset, openTokens } from "./dataset.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

let folder = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-dataset-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/**
 * Letters and spaces are ids 2 and up in the order of `letters`; 0 begins a text and 1 ends it. Other
 * letters become `unknownToken`, which has no id, or nothing.
 */
const letters = " abcdefgh";

function letterTokenizer(unknownToken: string | null = null): Tokenizer {
  const tokens = ["<s>", "</s>", ...letters];
  const special = (id: number) => ({ id, content: tokens[id], special: true });
  return createTokenizer(
    JSON.stringify({
      added_tokens: [special(0), special(1)],
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: { type: "Fuse" },
      model: {
        type: "BPE",
        unk_token: unknownToken,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: [],
      },
    }),
    JSON.stringify({ bos_token: "<s>", eos_token: "</s>", add_bos_token: true }),
  );
}

const idsOf = (text: string) => Array.from(text, (letter) => 2 + letters.indexOf(letter));

async function write(name: string, content: string): Promise<string> {
  await writeFile(join(folder, name), content);
  return join(folder, name);
}

/** Counts the texts that the tokenizer is given and that have anything in them. */
function counting(tokenizer: Tokenizer): { tokenizer: Tokenizer; calls: () => number } {
  let calls = 0;
  const counted: Tokenizer = {
    ...tokenizer,
    encode(text, options) {
      if (text !== "") calls++;
      return tokenizer.encode(text, options);
    },
  };
  return { tokenizer: counted, calls: () => calls };
}

const small = { sequenceLength: 4, batchSize: 1, shuffle: false } as const;

describe("openDataset", () => {
  test("goes from text to batches", async () => {
    const train = await write("a.txt", "abc");
    const more = await write("b.txt", "h ");
    const dataset = await openDataset({ ...small, train: [train, more], tokenizer: letterTokenizer() });
    const batches = [await dataset.train.next(), await dataset.train.next()];
    // <s> a b c | </s> <s> h " " and a last </s> that fills no row.
    expect(batches.map(({ tokens }) => Array.from(tokens))).toEqual([
      [0, ...idsOf("abc")],
      [1, 0, ...idsOf("h ")],
    ]);
    expect(Array.from(batches[1]!.targets)).toEqual([-1, ...idsOf("h "), -1]);
    expect(dataset.validation).toBeUndefined();
    await dataset.close();
  });

  test("fine-tunes on completions alone", async () => {
    const train = await write("pairs.jsonl", '{"prompt":"ab ","completion":"cd"}\n');
    const dataset = await openDataset({
      train,
      promptField: "prompt",
      completionField: "completion",
      tokenizer: letterTokenizer(),
      sequenceLength: 8,
      batchSize: 1,
      packing: "best_fit",
    });
    const { tokens, targets, offsets } = await dataset.train.next();
    expect(Array.from(tokens)).toEqual([0, ...idsOf("ab cd"), 1, 0]);
    expect(Array.from(targets)).toEqual([-1, -1, -1, ...idsOf("cd"), 1, -1, -1]);
    expect(Array.from(offsets)).toEqual([0, 7, 8]);
    await dataset.close();
  });

  test("takes ready token ids as they are, and names a document with ids out of range", async () => {
    const train = await write("ids.jsonl", '{"text":[2,3,4,5]}\n{"text":[2,11]}\n');
    const options = { ...small, tokenizer: letterTokenizer() };
    await expect(openDataset({ ...options, train })).rejects.toThrow(
      /outside the vocabulary[\s\S]*ids\.jsonl:2[\s\S]*0 to 10[\s\S]*11 \(token 1\)/,
    );
    const dataset = await openDataset({ ...options, train: await write("good.jsonl", '{"text":[2,3,4,5]}') });
    expect(Array.from((await dataset.train.next()).tokens)).toEqual([2, 3, 4, 5]);
    await dataset.close();
  });

  test("names a document that the tokenizer cannot write", async () => {
    const train = await write("odd.jsonl", '{"text":"abc"}\n{"text":"xyz"}\n');
    await expect(openTokens(train, { tokenizer: letterTokenizer() })).rejects.toThrow(
      /no token for anything[\s\S]*odd\.jsonl:2[\s\S]*xyz/,
    );
    await expect(openTokens(train, { tokenizer: letterTokenizer("<unknown>") })).rejects.toThrow(
      /cannot write a document[\s\S]*odd\.jsonl:2[\s\S]*"<unknown>"/,
    );
  });

  test("sets validation data apart by fraction, the same with and without a cache", async () => {
    const train = await write(
      "many.jsonl",
      Array.from({ length: 40 }, (_, line) => JSON.stringify({ text: "abcdefgh".slice(line % 5) })).join(
        "\n",
      ),
    );
    const options: DatasetOptions = {
      train,
      validation: 0.2,
      tokenizer: letterTokenizer(),
      sequenceLength: 4,
      batchSize: 3,
      seed: 5,
    };
    const inMemory = await openDataset(options);
    const cached = await openDataset({ ...options, cacheDirectory: join(folder, "cache") });
    const total = inMemory.train.tokenCount + inMemory.validation!.tokenCount;
    expect(inMemory.validation!.tokenCount / total).toBeCloseTo(0.2, 1);
    cached.train.restore(inMemory.train.state());
    for (let step = 0; step < 30; step++)
      expect(await cached.train.next()).toEqual(await inMemory.train.next());
    for await (const batch of inMemory.validation!.onePass()) expect(batch.tokens.length).toBe(12);
    await Promise.all([inMemory.close(), cached.close()]);
  });

  test("takes validation data from other files", async () => {
    const train = await write("train.txt", "abcdefgh");
    const validation = await write("validation.txt", "hgfedcba");
    const options = { ...small, train, validation, tokenizer: letterTokenizer() };
    const dataset = await openDataset(options);
    expect(Array.from((await dataset.validation!.next()).tokens)).toEqual([0, ...idsOf("hgf")]);
    await dataset.close();
    await expect(openDataset({ ...options, validation: await write("none.txt", "") })).rejects.toThrow(
      /nothing in it[\s\S]*none\.txt/,
    );
    await expect(openDataset({ ...options, validation: 1 })).rejects.toThrow(/validation fraction[\s\S]*1/);
    await expect(openDataset({ ...options, validation: await write("little.txt", "a") })).rejects.toThrow(
      /does not fill a single sequence[\s\S]*validation data[\s\S]*3 tokens/,
    );
  });

  test("tokenises once, and again when the text or the tokenizer changes", async () => {
    const train = await write("text.txt", "abcdefgh");
    const cacheDirectory = join(folder, "cache");
    const openWith = async (base: Tokenizer): Promise<number> => {
      const { tokenizer, calls } = counting(base);
      const dataset = await openDataset({ ...small, train, tokenizer, cacheDirectory });
      await dataset.close();
      return calls();
    };
    expect(await openWith(letterTokenizer())).toBe(1);
    expect(await openWith(letterTokenizer())).toBe(0);
    await appendFile(train, "abc");
    expect(await openWith(letterTokenizer())).toBe(1);
    expect(await readdir(cacheDirectory)).toHaveLength(1);
    const other = await trainTokenizer(["abc"], { vocabularySize: 258 });
    expect(await openWith(other)).toBe(1);
    expect(await openWith(letterTokenizer())).toBe(0);
  });

  test("refuses a tokenizer that the model has no room for, before reading anything", async () => {
    const options = { ...small, train: "absent.txt", tokenizer: letterTokenizer() };
    await expect(openDataset({ ...options, modelVocabularySize: 10 })).rejects.toThrow(
      /exceeds the model's[\s\S]*at least 11/,
    );
    await expect(openDataset({ ...options, modelVocabularySize: 11 })).rejects.toThrow(/file is missing/);
  });

  test("tells how far it has come", async () => {
    const train = await write("text.txt", "abcdefgh");
    const seen: unknown[] = [];
    const onProgress = (progress: unknown) => seen.push(progress);
    await (await openDataset({ ...small, train, tokenizer: letterTokenizer(), onProgress })).close();
    expect(seen.at(-1)).toEqual({ documents: 1, tokens: 10 });
  });
});
