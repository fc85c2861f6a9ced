import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { cachedTokens, type TokenCacheOptions } from "./token_cache.ts";
import { collectTokens, type TokenisedDocument, type TokenStore } from "./token_store.ts";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "slipstream-cache-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

/** 3 documents of 100,000 tokens in all: more than one block of 32,768 or 16,384 tokens. */
const lengths = [10, 70_000, 29_990];

function idAt(index: number, vocabularySize: number): number {
  return (index * 7919 + 13) % vocabularySize;
}

async function* documents(vocabularySize: number): AsyncGenerator<TokenisedDocument> {
  let start = 0;
  for (const [document, length] of lengths.entries()) {
    yield {
      ids: Array.from({ length }, (_, index) => idAt(start + index, vocabularySize)),
      promptLength: document,
    };
    start += length;
  }
}

function optionsFor(overrides: Partial<TokenCacheOptions> = {}): TokenCacheOptions {
  return { directory, name: "book", madeFrom: "book 1", vocabularySize: 60_000, ...overrides };
}

/** Opens the cache and tells whether the documents had to be tokenised for it. */
async function open(
  overrides: Partial<TokenCacheOptions> = {},
): Promise<{ store: TokenStore; built: boolean; rebuilds: string[] }> {
  const rebuilds: string[] = [];
  let built = false;
  const options = optionsFor({ onRebuild: (reason) => rebuilds.push(reason), ...overrides });
  const store = await cachedTokens(options, () => {
    built = true;
    return documents(options.vocabularySize);
  });
  return { store, built, rebuilds };
}

async function expectTokens(store: TokenStore, vocabularySize: number): Promise<void> {
  expect(store.tokenCount).toBe(100_000);
  expect(Array.from(store.documentStarts)).toEqual([0, 10, 70_010, 100_000]);
  expect(Array.from(store.promptLengths!)).toEqual([0, 1, 2]);
  for (const [start, count] of [
    [0, 5],
    [32_760, 20],
    [16_380, 40_000],
    [99_990, 10],
  ] as const) {
    const target = new Int32Array(count + 2).fill(-7);
    await store.read(start, count, target, 1);
    const expected = Array.from({ length: count }, (_, index) => idAt(start + index, vocabularySize));
    expect(Array.from(target)).toEqual([-7, ...expected, -7]);
  }
}

async function filesOfCache(): Promise<{ folder: string; files: string[] }> {
  const folders = await readdir(directory);
  expect(folders).toHaveLength(1);
  const folder = join(directory, folders[0]!);
  return { folder, files: (await readdir(folder)).sort() };
}

const inPlace = { memoryLimit: 0, keptBlocks: 2 };

describe("the token cache", () => {
  test.each([
    ["in memory", 60_000, {}],
    ["in memory, wide", 128_000, {}],
    ["in place", 60_000, inPlace],
    ["in place, wide", 128_000, inPlace],
  ] as const)("gives back what was tokenised once (%s)", async (_, vocabularySize, reading) => {
    const first = await open({ vocabularySize, reading });
    await expectTokens(first.store, vocabularySize);
    await first.store.close();
    const second = await open({ vocabularySize, reading });
    expect([first.built, second.built]).toEqual([true, false]);
    await expectTokens(second.store, vocabularySize);
    await second.store.close();
  });

  test.each([60_000, 128_000])("has the layout that it documents (vocabulary %i)", async (vocabularySize) => {
    const width = vocabularySize === 60_000 ? 2 : 4;
    const { store } = await open({ vocabularySize, tokensPerShard: 40_000, reading: inPlace });
    await expectTokens(store, vocabularySize);
    await store.close();
    const { folder, files } = await filesOfCache();
    const shards = files.filter((file) => file.startsWith("tokens-"));
    // 40,000 tokens are rounded up to whole blocks: 65,536 tokens of 2 bytes, 49,152 of 4.
    expect(shards).toEqual(
      width === 2
        ? ["tokens-00000.bin", "tokens-00001.bin"]
        : ["tokens-00000.bin", "tokens-00001.bin", "tokens-00002.bin"],
    );
    const bytes = Buffer.concat(await Promise.all(shards.map((shard) => readFile(join(folder, shard)))));
    expect(bytes.length).toBe(100_000 * width);
    for (const index of [0, 49_151, 49_152, 65_535, 65_536, 99_999]) {
      expect(bytes.readUIntLE(index * width, width)).toBe(idAt(index, vocabularySize));
    }
    const starts = await readFile(join(folder, "documents.bin"));
    expect([0, 1, 2, 3].map((index) => starts.readDoubleLE(8 * index))).toEqual([0, 10, 70_010, 100_000]);
  });

  test("has the identity of the same tokens in memory", async () => {
    const inMemory = await collectTokens(documents(60_000), 60_000);
    await expectTokens(inMemory, 60_000);
    expect((await open()).store.identity).toBe(inMemory.identity);
    expect((await open({ madeFrom: "book 2", vocabularySize: 59_999 })).store.identity).not.toBe(
      inMemory.identity,
    );
  });

  test("is made anew once the data or the tokenizer changes, and the old one goes", async () => {
    await open();
    const changed = await open({ madeFrom: "book 2" });
    expect([changed.built, changed.rebuilds]).toEqual([true, []]);
    await filesOfCache();
    await open({ name: "another book" });
    expect(await readdir(directory)).toHaveLength(2);
  });

  test.each([
    [
      "a truncated shard",
      (folder: string) => truncate(join(folder, "tokens-00000.bin"), 1000),
      /tokens-00000/,
    ],
    ["a lost shard", (folder: string) => rm(join(folder, "tokens-00000.bin")), /no file/],
    [
      "a flipped byte in a shard",
      (folder: string) => flipByte(join(folder, "tokens-00000.bin"), 150_001),
      /bytes 131072/,
    ],
    [
      "a flipped byte in the documents",
      (folder: string) => flipByte(join(folder, "documents.bin"), 12),
      /documents\.bin/,
    ],
    ["a truncated index", (folder: string) => truncate(join(folder, "index.json"), 40), /index\.json/],
    [
      "an index of something else",
      (folder: string) => writeFile(join(folder, "index.json"), '{"format":1}'),
      /index/,
    ],
  ] as const)("with %s is noticed and made anew", async (_, damage, reason) => {
    await (await open()).store.close();
    await damage((await filesOfCache()).folder);
    const { store, built, rebuilds } = await open();
    expect(built).toBe(true);
    expect(rebuilds).toHaveLength(1);
    expect(rebuilds[0]).toMatch(/token cache is damaged/);
    expect(rebuilds[0]).toMatch(reason);
    await expectTokens(store, 60_000);
    expect((await open()).built).toBe(false);
    await filesOfCache();
  });

  test("damaged while it is read in place is refused, not believed", async () => {
    const { store } = await open({ reading: inPlace });
    await flipByte(join((await filesOfCache()).folder, "tokens-00000.bin"), 150_001);
    const target = new Int32Array(10);
    await store.read(0, 10, target, 0);
    await expect(store.read(75_000, 10, target, 0)).rejects.toThrow(
      /token cache is damaged[\s\S]*bytes 131072 to 196608[\s\S]*made again/,
    );
    await store.close();
  });

  test("leaves nothing behind when the data cannot be read", async () => {
    const failing = cachedTokens(optionsFor(), async function* () {
      yield* documents(60_000);
      throw new Error("the disk caught fire");
    });
    await expect(failing).rejects.toThrow("the disk caught fire");
    expect(await readdir(directory)).toEqual([]);
  });

  test("may be made by several at once", async () => {
    const opened = await Promise.all(Array.from({ length: 4 }, () => open()));
    for (const { store } of opened) await expectTokens(store, 60_000);
    await filesOfCache();
  });

  test("that cannot be written says where", async () => {
    await writeFile(join(directory, "file"), "");
    await expect(open({ directory: join(directory, "file") })).rejects.toThrow(
      /cannot write the token cache[\s\S]*file[\s\S]*cache_dir/,
    );
  });
});

async function flipByte(path: string, index: number): Promise<void> {
  const bytes = await readFile(path);
  bytes[index]! ^= 0x40;
  await writeFile(path, bytes);
}
