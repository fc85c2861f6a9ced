import { describe, expect, test } from "vitest";
import { assembleBatch, type MicroBatch } from "./batch.ts";
import { DataLoader, type LoaderOptions, type LoaderState } from "./loader.ts";
import { pack } from "./packing.ts";
import { allSpans, shuffled, spannedTokens, splitSpans } from "./split.ts";
import { collectTokens, type TokenStore } from "./token_store.ts";

/** Documents of the given lengths; ids count up through all of them from 0. */
async function storeOf(
  lengths: readonly number[],
  promptLengths: readonly number[] = [],
): Promise<TokenStore> {
  async function* documents() {
    let next = 0;
    for (const [document, length] of lengths.entries()) {
      const ids = Array.from({ length }, () => next++);
      yield { ids, promptLength: promptLengths[document] ?? 0 };
    }
  }
  return collectTokens(documents(), 2 ** 16);
}

const lists = ({ tokens, targets, positions, offsets }: MicroBatch) => ({
  tokens: Array.from(tokens),
  targets: Array.from(targets),
  positions: Array.from(positions),
  offsets: Array.from(offsets),
});

async function batchOf(
  store: TokenStore,
  mode: "rows" | "best_fit",
  sequenceLength: number,
  rows: (number | undefined)[],
  documentBoundaries = true,
): Promise<MicroBatch> {
  const spans = allSpans(store);
  const packing = pack(mode, spans, sequenceLength);
  return assembleBatch(rows, { store, spans, packing, sequenceLength, documentBoundaries });
}

describe("a batch", () => {
  test("has a segment for each document of a row, and targets within segments", async () => {
    const batch = await batchOf(await storeOf([3, 6, 1]), "rows", 5, [0, 1]);
    expect(lists(batch)).toEqual({
      tokens: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
      targets: [1, 2, -1, 4, -1, 6, 7, 8, -1, -1],
      positions: [0, 1, 2, 0, 1, 0, 1, 2, 3, 0],
      offsets: [0, 3, 5, 9, 10],
    });
    expect(batch.targetCount).toBe(6);
  });

  test("has a segment for each row where document boundaries are ignored", async () => {
    const batch = await batchOf(await storeOf([3, 6, 1]), "rows", 5, [1, 0], false);
    expect(lists(batch)).toEqual({
      tokens: [5, 6, 7, 8, 9, 0, 1, 2, 3, 4],
      targets: [6, 7, 8, 9, -1, 1, 2, 3, 4, -1],
      positions: [0, 1, 2, 3, 4, 0, 1, 2, 3, 4],
      offsets: [0, 5, 10],
    });
    expect(batch.targetCount).toBe(8);
  });

  test("fills room that is left, and rows that are lacking, without targets", async () => {
    // Best fit into rows of 6: [4 tokens of document 1], [3 of document 0, then 2 of document 2].
    const store = await storeOf([3, 4, 2]);
    const batch = await batchOf(store, "best_fit", 6, [0, undefined, 1]);
    expect(lists(batch)).toEqual({
      tokens: [3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0],
      targets: [4, 5, 6, -1, 8, -1, -1, -1, -1, -1, -1, -1, 1, 2, -1, -1, -1, -1],
      positions: [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2],
      offsets: [0, 4, 6, 12, 15, 18],
    });
    expect(batch.targetCount).toBe(6);
  });

  test("takes no loss on prompts, wherever rows cut them", async () => {
    // Document 0 has 5 prompt tokens of 8, document 1 has 1 of 4.
    const store = await storeOf([8, 4], [5, 1]);
    const marked = await batchOf(store, "rows", 4, [0, 1, 2]);
    expect(Array.from(marked.targets)).toEqual([-1, -1, -1, -1, 5, 6, 7, -1, 9, 10, 11, -1]);
    expect(marked.targetCount).toBe(6);
    const unmarked = await batchOf(store, "rows", 12, [0], false);
    expect(Array.from(unmarked.targets)).toEqual([-1, -1, -1, -1, 5, 6, 7, -1, 9, 10, 11, -1]);
    expect(unmarked.targetCount).toBe(6);
  });
});

const defaults = { name: "training data", sequenceLength: 4, batchSize: 2, seed: 7 };

async function loaderOf(options: Partial<LoaderOptions> = {}): Promise<DataLoader> {
  const store = options.store ?? (await storeOf([30, 5, 17]));
  return new DataLoader({ ...defaults, store, spans: allSpans(store), ...options });
}

async function take(loader: DataLoader, count: number): Promise<ReturnType<typeof lists>[]> {
  const batches: ReturnType<typeof lists>[] = [];
  for (let index = 0; index < count; index++) batches.push(lists(await loader.next()));
  return batches;
}

/** The rows of batches, each by its first token over the row length: its number, as ids count up. */
const rowsOf = (batches: { tokens: number[] }[], sequenceLength = 4) =>
  batches.flatMap(({ tokens }) =>
    Array.from(
      { length: tokens.length / sequenceLength },
      (_, row) => tokens[row * sequenceLength]! / sequenceLength,
    ),
  );

const ascending = (numbers: number[]) => [...numbers].sort((a, b) => a - b);
const upTo = (count: number) => Array.from({ length: count }, (_, index) => index);

describe("DataLoader", () => {
  test("gives every row once an epoch, each epoch in another order", async () => {
    const loader = await loaderOf();
    expect([loader.rowCount, loader.tokenCount]).toEqual([13, 52]);
    // 13 batches of 2 rows are two epochs; the border falls into the middle of batch 6.
    const rows = rowsOf(await take(loader, 13));
    expect(ascending(rows.slice(0, 13))).toEqual(upTo(13));
    expect(ascending(rows.slice(13))).toEqual(upTo(13));
    expect(rows.slice(0, 13)).not.toEqual(upTo(13));
    expect(rows.slice(13)).not.toEqual(rows.slice(0, 13));
    expect(loader.epoch).toBe(2);
  });

  test("gives the same rows for the same seed, others for another, none shuffled where not asked to", async () => {
    const rows = rowsOf(await take(await loaderOf(), 10));
    expect(rowsOf(await take(await loaderOf(), 10))).toEqual(rows);
    expect(rowsOf(await take(await loaderOf({ seed: 8 }), 10))).not.toEqual(rows);
    expect(rowsOf(await take(await loaderOf({ shuffle: false }), 7))).toEqual([...upTo(13), 0]);
  });

  test("goes on after a restore as if it had not stopped, at any point", async () => {
    for (const packing of ["rows", "best_fit"] as const) {
      const whole = await take(await loaderOf({ packing }), 20);
      for (const stop of [0, 1, 6, 7, 13]) {
        const first = await loaderOf({ packing });
        await take(first, stop);
        const saved = JSON.parse(JSON.stringify(first.state())) as LoaderState;
        const second = await loaderOf({ packing });
        second.restore(saved);
        expect(second.state()).toEqual(saved);
        expect(await take(second, 20 - stop)).toEqual(whole.slice(stop));
      }
    }
  });

  test("shares rows among ranks, the same ones that one rank would take", async () => {
    const alone = await take(await loaderOf({ batchSize: 6 }), 5);
    const first = await loaderOf({ worldSize: 3, rank: 0 });
    const ranks = [first, first.forRank(1, 3), first.forRank(2, 3)];
    const parts = await Promise.all(ranks.map((rank) => take(rank, 5)));
    for (const [step, whole] of alone.entries()) {
      expect(parts.flatMap((batches) => batches[step]!.tokens)).toEqual(whole.tokens);
    }
    // Three micro-batches of one rank make up the same step, too.
    expect((await take(await loaderOf(), 3)).flatMap(({ tokens }) => tokens)).toEqual(alone[0]!.tokens);
  });

  test("resumes with another number of ranks", async () => {
    const whole = rowsOf(await take(await loaderOf({ batchSize: 1 }), 24));
    const two = await loaderOf({ worldSize: 2, rank: 1 });
    await take(two, 3);
    const three = await loaderOf({ worldSize: 3, rank: 2 });
    three.restore(two.state());
    expect(rowsOf(await take(three, 2))).toEqual([16, 17, 22, 23].map((place) => whole[place]));
  });

  test("passes once over all rows for evaluation without moving its place", async () => {
    const first = await loaderOf({ worldSize: 2, rank: 0 });
    const before = first.state();
    const seen: number[] = [];
    const counts: number[] = [];
    let targets = 0;
    for (const rank of [first, first.forRank(1, 2)]) {
      let batches = 0;
      for await (const batch of rank.onePass()) {
        batches++;
        targets += batch.targetCount;
        expect(batch.tokens.length).toBe(8);
        for (const [index, target] of batch.targets.entries())
          if (target >= 0) seen.push(batch.tokens[index]!);
      }
      counts.push(batches);
    }
    // 13 rows over 2 ranks of 2 rows: 4 batches each. Rows of 4 tokens have 3 targets, but for the ones
    // that documents end in: 30 and 35 are within a row, which loses one target each.
    expect(counts).toEqual([4, 4]);
    expect(targets).toBe(13 * 3 - 2);
    expect(new Set(seen).size).toBe(targets);
    expect(first.state()).toEqual(before);
    let limited = 0;
    for await (const batch of first.onePass({ maximumBatches: 2 })) limited += batch.tokens.length;
    expect(limited).toBe(16);
  });

  test("refuses a state of other data or other settings, and says which", async () => {
    const state = (await loaderOf()).state();
    const store = await storeOf([30, 6, 16]);
    await expect(loaderOf({ store }).then((loader) => loader.restore(state))).rejects.toThrow(
      /does not fit this run[\s\S]*training data, data[\s\S]*data, its split or the tokenizer/,
    );
    const others: [Partial<LoaderOptions>, RegExp][] = [
      [{ sequenceLength: 5 }, /sequence_length 5 \(this run\)[\s\S]*sequence_length 4 \(the checkpoint\)/],
      [{ seed: 8 }, /seed 8/],
      [{ packing: "best_fit" }, /packing "best_fit"/],
      [{ shuffle: false }, /shuffle false/],
      [{ documentBoundaries: false }, /document_boundaries false/],
    ];
    for (const [options, message] of others) {
      const loader = await loaderOf(options);
      expect(() => loader.restore(state)).toThrow(message);
    }
    const loader = await loaderOf();
    expect(() => loader.restore({ ...state, consumed_rows: -1 })).toThrow(/damaged[\s\S]*-1/);
  });

  test("refuses data that is too little and numbers that make no sense", async () => {
    await expect(loaderOf({ store: await storeOf([2, 1]) })).rejects.toThrow(
      /does not fill a single sequence[\s\S]*at least 4 tokens[\s\S]*3 tokens/,
    );
    await expect(loaderOf({ batchSize: 0 })).rejects.toThrow(/micro-batch size[\s\S]*from 1[\s\S]*0/);
    await expect(loaderOf({ rank: 2, worldSize: 2 })).rejects.toThrow(/rank[\s\S]*from 0 to 1[\s\S]*2/);
    await expect(loaderOf({ sequenceLength: 1.5 })).rejects.toThrow(/sequence_length[\s\S]*1\.5/);
  });
});

describe("the split", () => {
  const tokensOf = ({ starts, ends }: { starts: Float64Array; ends: Float64Array }) =>
    Array.from(starts).flatMap((start, span) => upTo(ends[span]! - start).map((index) => start + index));

  test("takes whole documents where there are several", async () => {
    const lengths = upTo(40).map((index) => 50 + ((index * 37) % 60));
    const store = await storeOf(lengths);
    const { train, validation } = splitSpans(store, 0.1, 3);
    const boundaries = new Set(store.documentStarts);
    for (const { starts, ends } of [train, validation]) {
      expect([...starts, ...ends].every((place) => boundaries.has(place))).toBe(true);
    }
    expect(ascending([...tokensOf(train), ...tokensOf(validation)])).toEqual(upTo(store.tokenCount));
    expect(Math.abs(spannedTokens(validation) / store.tokenCount - 0.1)).toBeLessThan(0.05);
    expect(splitSpans(store, 0.1, 3).validation).toEqual(validation);
    expect(splitSpans(store, 0.1, 4).validation).not.toEqual(validation);
  });

  test("takes the tail where documents are too few", async () => {
    const one = splitSpans(await storeOf([100], [10]), 0.25, 0);
    expect([Array.from(one.train.starts), Array.from(one.train.ends)]).toEqual([[0], [75]]);
    expect([Array.from(one.validation.starts), Array.from(one.validation.ends)]).toEqual([[75], [100]]);
    expect(Array.from(one.train.promptEnds)).toEqual([10]);
    // Neither of 10 and 90 is near 40 tokens; the cut at 60 falls into the second document.
    const two = splitSpans(await storeOf([10, 90]), 0.4, 0);
    expect([Array.from(two.train.starts), Array.from(two.train.ends)]).toEqual([
      [0, 10],
      [10, 60],
    ]);
    expect([Array.from(two.validation.starts), Array.from(two.validation.ends)]).toEqual([[60], [100]]);
    const store = await storeOf([1]);
    expect(() => splitSpans(store, 0.5, 0)).toThrow(/too little data/);
  });
});

describe("shuffled", () => {
  test("gives each order of three equally often", () => {
    const counts = new Map<string, number>();
    for (let stream = 0; stream < 6000; stream++) {
      const order = shuffled(3, 1, stream).join("");
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    // The standard deviation of a count of 1000 is 29.
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150);
  });
});
