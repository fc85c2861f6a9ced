import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PhiloxStream } from "../../src/base/random.ts";
import {
  acceptableTokens,
  operandsOf,
  type SamplingRow,
  sampleByReference,
  sampleNatively,
} from "./sampling_support.ts";
import { copyOf, variantsOf } from "./support.ts";

const isas = ["scalar" as const, ...variantsOf("sample")];
const banned = Number.NEGATIVE_INFINITY;

/** Seeded normal numbers times `scale`, exact in float32. */
function normals(count: number, seed: number, scale = 1): Float32Array {
  const stream = new PhiloxStream(seed);
  return Float32Array.from({ length: count }, () => scale * stream.nextNormal());
}

/** The tokens of rows that differ in the position of their token alone. */
function draws(isa: (typeof isas)[number], row: SamplingRow, count: number): number[] {
  const rows = Array.from({ length: count }, (_, position) => ({ ...row, seeds: [7, 11, position, 0] }));
  return sampleNatively(isa, rows).map(({ token }) => token);
}

/**
 * Checks that counts follow probabilities: Pearson's statistic stays below its 99.99% quantile (Wilson and
 * Hilferty's approximation). The seeds are fixed, so a test passes always or never.
 */
function expectDistribution(tokens: readonly number[], probabilities: readonly number[]): void {
  const counts = probabilities.map(() => 0);
  for (const token of tokens) counts[token]!++;
  let statistic = 0;
  let cells = 0;
  probabilities.forEach((probability, token) => {
    if (probability === 0) {
      expect(counts[token], `draws of token ${token}`).toBe(0);
      return;
    }
    const expected = probability * tokens.length;
    expect(expected, "expected draws of each token").toBeGreaterThanOrEqual(5);
    statistic += (counts[token]! - expected) ** 2 / expected;
    cells++;
  });
  const freedom = Math.max(1, cells - 1);
  const quantile = freedom * (1 - 2 / (9 * freedom) + 3.719 * Math.sqrt(2 / (9 * freedom))) ** 3;
  expect(statistic).toBeLessThan(cells === 1 ? 1e-9 : quantile);
}

function softmax(logits: ArrayLike<number>, temperature = 1): number[] {
  const weights = Array.from(logits, (logit) => Math.exp(logit / temperature));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

/** Probabilities of those tokens alone. */
function only(probabilities: readonly number[], tokens: readonly number[]): number[] {
  const total = tokens.reduce((sum, token) => sum + probabilities[token]!, 0);
  return probabilities.map((probability, token) => (tokens.includes(token) ? probability / total : 0));
}

describe.each(isas)("on %s", (isa) => {
  const one = (row: SamplingRow) => sampleNatively(isa, [row])[0]!;

  describe("greedy", () => {
    test("takes the first of the largest, whatever the limits", () => {
      expect(one({ logits: [1, 5, -2, 5], temperature: 0 }).token).toBe(1);
      expect(one({ logits: [-3, -0, 0], temperature: 0 }).token).toBe(1);
      expect(one({ logits: [1, 5, 4], temperature: 0, top_k: 2, top_p: 0.1, min_p: 1 }).token).toBe(1);
      expect(one({ logits: [banned, -1e30, banned], temperature: 0 }).token).toBe(1);
      expect(one({ logits: [-4], temperature: 0 }).token).toBe(0);
      expect(one({ logits: [1, 5, 4], temperature: 1e-6 }).token).toBe(1);
    });

    test("finds the largest anywhere in rows that divide no block and no vector", () => {
      for (const vocabulary of [1, 3, 31, 127, 128, 129, 157, 1000, 5003]) {
        for (const at of [0, vocabulary >> 1, vocabulary - 1]) {
          const logits = normals(vocabulary, 3);
          logits[at] = 9;
          expect(one({ logits, temperature: 0 }).token).toBe(at);
        }
      }
    });

    // By hand: 4 and 3.5 change places where 4 - 0.25 * 3 or 4 / 2, -1 * 2 etc. say so.
    test("looks at penalties, biases and masks", () => {
      const row = { logits: [4, 3.5, -1, -1.5], temperature: 0 };
      const token = (more: Partial<SamplingRow>) => one({ ...row, ...more }).token;
      expect(token({ frequency_penalty: 0.25, history: [[0, 3]] })).toBe(1);
      expect(token({ frequency_penalty: 0.25, history: [[0, 1]] })).toBe(0);
      expect(token({ presence_penalty: 0.75, history: [[0, 9]] })).toBe(1);
      expect(token({ presence_penalty: 0.75, history: [[0, 0]] })).toBe(0);
      expect(token({ repetition_penalty: 2, history: [[0, 0]] })).toBe(1);
      expect(token({ repetition_penalty: 2, history: [[2, 4]], allowed: [2, 3] })).toBe(3);
      expect(token({ frequency_penalty: -3, history: [[3, 2]] })).toBe(3);
      expect(token({ bias: [[2, 6]] })).toBe(2);
      expect(token({ bias: [[0, banned]] })).toBe(1);
      expect(token({ allowed: [3] })).toBe(3);
      expect(token({ allowed: [2, 3], bias: [[3, 1]] })).toBe(3);
      // The bias comes before the repetition penalty: (-1 + 9) / 4 < 3.5, but 9 - 4 would not be.
      expect(token({ bias: [[2, 9]], repetition_penalty: 4, history: [[2, 1]] })).toBe(0);
    });
  });

  describe("each limit alone", () => {
    const logits = [2, 0.5, -1, 2, 1, -0.5];
    const plain = softmax(logits);

    test("none: the softmax", () => {
      expectDistribution(draws(isa, { logits }, 5000), plain);
    });
    test.each([0.5, 3])("temperature %d", (temperature) => {
      expectDistribution(draws(isa, { logits, temperature }, 5000), softmax(logits, temperature));
    });
    test("top_k keeps the likeliest, among equal ones the first", () => {
      expectDistribution(draws(isa, { logits, top_k: 3 }, 5000), only(plain, [0, 3, 4]));
      expectDistribution(draws(isa, { logits, top_k: 1 }, 100), only(plain, [0]));
      expectDistribution(draws(isa, { logits, top_k: 6 }, 5000), plain);
      expectDistribution(draws(isa, { logits, top_k: 1e6 }, 5000), plain);
    });
    // In order: 0.354, 0.354 (708), 0.130 (838), 0.079 (917), …
    test("top_p keeps the shortest beginning that reaches it", () => {
      expectDistribution(draws(isa, { logits, top_p: 0.3 }, 100), only(plain, [0]));
      expectDistribution(draws(isa, { logits, top_p: 0.5 }, 5000), only(plain, [0, 3]));
      expectDistribution(draws(isa, { logits, top_p: 0.75 }, 5000), only(plain, [0, 3, 4]));
      expectDistribution(draws(isa, { logits, top_p: 0.9 }, 5000), only(plain, [0, 1, 3, 4]));
      expectDistribution(draws(isa, { logits, top_p: 1e-30 }, 100), only(plain, [0]));
      expectDistribution(draws(isa, { logits, top_p: 0 }, 100), only(plain, [0]));
    });
    // Ratios to the likeliest: e^-1 = 0.368, e^-1.5 = 0.223, e^-2.5 = 0.082, e^-3 = 0.0498.
    test("min_p keeps those likely enough beside the likeliest", () => {
      expectDistribution(draws(isa, { logits, min_p: 0.3 }, 5000), only(plain, [0, 3, 4]));
      expectDistribution(draws(isa, { logits, min_p: 0.05 }, 5000), only(plain, [0, 1, 3, 4, 5]));
      expectDistribution(draws(isa, { logits, min_p: 1 }, 5000), only(plain, [0, 3]));
      expectDistribution(draws(isa, { logits, min_p: 0.3, temperature: 2 }, 5000), [
        ...only(softmax(logits, 2), [0, 1, 3, 4]),
      ]);
    });
    test("masks and biases", () => {
      expectDistribution(draws(isa, { logits, allowed: [1, 2, 5] }, 5000), only(plain, [1, 2, 5]));
      expectDistribution(draws(isa, { logits, bias: [[0, banned]] }, 5000), only(plain, [1, 2, 3, 4, 5]));
      expectDistribution(
        draws(isa, { logits, bias: [[2, 2]] }, 5000),
        softmax(logits.with(2, logits[2]! + 2)),
      );
    });
    test("penalties", () => {
      const history = [
        [0, 2],
        [2, 0],
        [4, 1],
      ] as const;
      expectDistribution(
        draws(isa, { logits, history, frequency_penalty: 0.5, presence_penalty: 0.25 }, 5000),
        softmax([2 - 1 - 0.25, 0.5, -1, 2, 1 - 0.5 - 0.25, -0.5]),
      );
      expectDistribution(
        draws(isa, { logits, history, repetition_penalty: 1.5 }, 5000),
        softmax([2 / 1.5, 0.5, -1.5, 2, 1 / 1.5, -0.5]),
      );
    });
  });

  test("several limits at once: min_p, then top_k, then top_p of what they left", () => {
    const logits = [3, 2, 1, 0, -1];
    const plain = softmax(logits);
    // Of the first three, the first two have 0.910: of all five they would have 0.871.
    expectDistribution(draws(isa, { logits, top_k: 3, top_p: 0.9 }, 5000), only(plain, [0, 1]));
    expectDistribution(draws(isa, { logits, top_p: 0.9 }, 5000), only(plain, [0, 1, 2]));
    expectDistribution(draws(isa, { logits, min_p: 0.1, top_p: 0.9 }, 5000), only(plain, [0, 1]));
    expectDistribution(draws(isa, { logits, min_p: 0.1, top_k: 2 }, 5000), only(plain, [0, 1]));
  });

  test("a large vocabulary: groups of tokens are drawn as often as they are likely", () => {
    const logits = normals(3001, 5, 1.5);
    const group = (token: number): number => token % 10;
    const sums = (probabilities: readonly number[]): number[] => {
      const grouped = new Array<number>(10).fill(0);
      probabilities.forEach((probability, token) => {
        grouped[group(token)]! += probability;
      });
      return grouped;
    };
    const plain = softmax(logits);
    const order = [...plain.keys()].sort((a, b) => plain[b]! - plain[a]!);
    const check = (more: Partial<SamplingRow>, probabilities: readonly number[]) =>
      expectDistribution(draws(isa, { logits, ...more }, 1500).map(group), sums(probabilities));
    check({}, plain);
    check({ top_k: 17 }, only(plain, order.slice(0, 17)));
    check({ top_k: 1500 }, only(plain, order.slice(0, 1500)));
    let [count, mass] = [0, 0];
    while (mass < 0.7) mass += plain[order[count++]!]!;
    check({ top_p: 0.7 }, only(plain, order.slice(0, count)));
  });

  test("the same seed draws the same, whatever else is in the batch and however many threads", () => {
    const rows: SamplingRow[] = Array.from({ length: 40 }, (_, index) => ({
      logits: normals(777, index, 2),
      seeds: [index % 5, -index, index * 3, index % 2],
      temperature: index % 4 === 0 ? 0 : 1,
      top_k: index % 3 === 0 ? 20 : 0,
      top_p: index % 5 === 0 ? 0.8 : 1,
      min_p: index % 7 === 0 ? 0.02 : 0,
      logprobs: (index % 6) - 1,
      ...(index % 8 === 0 ? { bias: [[index, 3] as const] } : {}),
    }));
    const together = sampleNatively(isa, rows, 1);
    for (const threads of [2, 3]) expect(sampleNatively(isa, rows, threads)).toEqual(together);
    rows.forEach((row, index) => {
      expect(one(row)).toEqual(together[index]);
    });
  });

  test("each of the four words of the seed counts", () => {
    const logits = normals(5000, 8, 0.1);
    const tokens = [
      [1, 2, 3, 4],
      [5, 2, 3, 4],
      [1, 5, 3, 4],
      [1, 2, 5, 4],
      [1, 2, 3, 5],
    ].map((seeds) => one({ logits, seeds }).token);
    expect(new Set(tokens).size).toBe(5);
  });

  describe("log-probabilities", () => {
    // Probabilities 1/8, 4/8, 1/8, 2/8.
    const logits = [0, Math.log(4), 0, Math.log(2)];

    test("are the model's own, before penalties, biases, masks and temperature", () => {
      const row = {
        logits,
        temperature: 0,
        bias: [[1, banned]] as const,
        history: [[3, 2]] as const,
        presence_penalty: 0.1,
        logprobs: 3,
      };
      const result = one(row);
      expect(result.token).toBe(3);
      expect(result.logprob).toBeCloseTo(Math.log(1 / 4), 6);
      expect(result.topTokens.slice(0, 4)).toEqual([1, 3, 0, -1]);
      const expected = [1 / 2, 1 / 4, 1 / 8].map(Math.log);
      result.topLogprobs.slice(0, 3).forEach((logprob, index) => {
        expect(logprob).toBeCloseTo(expected[index]!, 6);
      });
      expect(result.topLogprobs.slice(3)).toEqual(new Array(17).fill(0));
    });

    test("as many as wanted, at most 20 and no more than there are", () => {
      const count = (more: Partial<SamplingRow>) =>
        one({ logits, temperature: 0, ...more }).topTokens.filter((token) => token !== -1).length;
      expect([-1, 0, 1, 4, 20, 1e9].map((logprobs) => count({ logprobs }))).toEqual([0, 0, 1, 4, 4, 4]);
      expect(count({ logits: normals(5000, 1), logprobs: 1e9 })).toBe(20);
      expect(one({ logits, temperature: 0 }).logprob).toBe(0);
      expect(one({ logits, temperature: 0, logprobs: 0 }).logprob).toBeCloseTo(Math.log(1 / 2), 6);
      // What the model itself rules out is not among the likeliest.
      expect(count({ logits: [0, banned, 1, banned], logprobs: 4 })).toBe(2);
    });

    test("the likeliest of many, equal ones by rising id", () => {
      const many = normals(4999, 6, 3);
      for (const at of [4998, 17, 4000]) many[at] = 30;
      const order = [...many.keys()].sort((a, b) => many[b]! - many[a]! || a - b);
      const total = many.reduce((sum, logit) => sum + Math.exp(logit - 30), 0);
      const result = one({ logits: many, logprobs: 20 });
      expect(result.topTokens).toEqual(order.slice(0, 20));
      result.topLogprobs.forEach((logprob, index) => {
        expect(logprob).toBeCloseTo(many[order[index]!]! - 30 - Math.log(total), 4);
      });
    });
  });

  describe("what cannot be sampled", () => {
    test.each([
      ["NaN", Number.NaN],
      ["infinity", Number.POSITIVE_INFINITY],
    ])("%s anywhere gives -1 and no log-probabilities, to its row alone", (_, value) => {
      for (const at of [0, 15, 130, 299]) {
        for (const temperature of [0, 1]) {
          const logits = normals(300, 4);
          logits[at] = value;
          const fine = { logits: normals(300, 4), temperature: 0 };
          const [before, broken, after] = sampleNatively(isa, [
            fine,
            { logits, temperature, logprobs: 5, top_k: 4, allowed: [1, 2] },
            fine,
          ]);
          expect(broken).toEqual({
            token: -1,
            logprob: 0,
            topTokens: new Array(20).fill(-1),
            topLogprobs: new Array(20).fill(0),
          });
          expect(before).toEqual(after);
          expect(before!.token).toBeGreaterThanOrEqual(0);
        }
      }
    });

    test("penalties that break the logits give -1", () => {
      const row = { logits: [1, 2, 3], history: [[1, 1]] as const };
      expect(one({ ...row, repetition_penalty: 0 }).token).toBe(-1);
      expect(one({ ...row, frequency_penalty: Number.NaN }).token).toBe(-1);
      expect(one({ logits: [1, 2], bias: [[0, Number.POSITIVE_INFINITY]] }).token).toBe(-1);
    });

    test("no token that is allowed gives -2", () => {
      for (const temperature of [0, 1]) {
        const row = { logits: [1, 2, 3], temperature, logprobs: 2 };
        expect(one({ ...row, allowed: [] }).token).toBe(-2);
        expect(one({ ...row, allowed: [1], bias: [[1, banned]] }).token).toBe(-2);
        expect(one({ ...row, logits: [banned, banned] })).toMatchObject({ token: -2, logprob: 0 });
      }
    });

    test("masks and ids that are not there: nothing allowed, nothing touched", () => {
      const rows = [{ logits: [1, 2, 3], temperature: 0 }];
      for (const index of [-2, 0, 7]) {
        const operands = operandsOf(rows);
        const maskRows = copyOf(operands[10]!);
        maskRows.data[0] = index;
        expect(sampleNatively(isa, rows, 1, operands.with(10, maskRows))[0]!.token).toBe(-2);
      }
      const strange = [-1, 3, 2 ** 31 - 1, -(2 ** 31)];
      const row = {
        ...rows[0]!,
        repetition_penalty: 2,
        history: strange.map((id) => [id, 1] as const),
        bias: strange.map((id) => [id, 9] as const),
      };
      expect(one(row).token).toBe(2);
    });

    test("settings that are not numbers, and extreme ones, give tokens that are there", () => {
      const logits = [...normals(200, 9, 4), banned];
      for (const name of ["temperature", "top_k", "top_p", "min_p", "logprobs"] as const) {
        for (const value of [Number.NaN, Infinity, -Infinity, 1e38, 1e-38, -1, 0]) {
          const { token } = one({ logits, [name]: value });
          expect(token, `${name} ${value}`).toBeGreaterThanOrEqual(0);
          expect(token, `${name} ${value}`).toBeLessThan(200);
        }
      }
      for (const temperature of [1e-5, 1, 1e30]) {
        const wide = [3e38, -3e38, banned, 1, 3e38];
        expect([0, 1, 3, 4]).toContain(one({ logits: wide, temperature, top_p: 0.9 }).token);
        expect([0, 1, 3, 4]).toContain(one({ logits: wide, temperature }).token);
      }
    });
  });

  test("any settings: the token of the float64 reference", () => {
    const stream = new PhiloxStream(2024);
    const oneIn = (count: number): boolean => stream.nextBelow(count) === 0;
    let unlike = 0;
    const row = fc
      .record({
        vocabulary: fc.constantFrom(1, 2, 5, 31, 32, 33, 127, 128, 129, 300, 1025),
        seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
        // Logits on a grid have ties everywhere; their penalties are powers of two, so that both are exact.
        grid: fc.boolean(),
        scale: fc.constantFrom(0.01, 0.5, 2, 8),
        temperature: fc.constantFrom(0, 0.1, 0.7, 1, 1, 1.5, 10),
        top_k: fc.constantFrom(0, 0, 1, 2, 5, 40, 200),
        top_p: fc.constantFrom(1, 1, 0.01, 0.5, 0.9, 0.999),
        min_p: fc.constantFrom(0, 0, 0.001, 0.1, 0.5, 1),
        repetition_penalty: fc.constantFrom(1, 0.5, 2),
        presence_penalty: fc.constantFrom(0, 0.5, -0.25),
        frequency_penalty: fc.constantFrom(0, 0.25, -0.5),
        logprobs: fc.integer({ min: -1, max: 20 }),
      })
      .map(({ vocabulary, seed, grid, scale, ...settings }): SamplingRow => {
        stream.position = seed * 4;
        const logits = Array.from({ length: vocabulary }, () =>
          grid ? (stream.nextBelow(33) - 16) / 4 : Math.fround(stream.nextNormal() * scale),
        );
        const ids = logits.map((_, id) => id);
        const words = [0, 1, 2, 3].map(() => stream.nextUint32() | 0);
        return {
          ...settings,
          logits,
          seeds: words,
          history: oneIn(2) ? ids.filter(() => oneIn(4)).map((id) => [id, stream.nextBelow(4)]) : [],
          bias: oneIn(2)
            ? ids.filter(() => oneIn(6)).map((id) => [id, oneIn(3) ? banned : stream.nextBelow(9) / 4 - 1])
            : [],
          ...(oneIn(2) ? { allowed: ids.filter(() => oneIn(2)) } : {}),
        };
      });
    const runs = 1500;
    fc.assert(
      fc.property(row, (given) => {
        const actual = one(given);
        const expected = sampleByReference([given])[0]!;
        if (actual.token !== expected.token) {
          unlike++;
          expect([...acceptableTokens(given, 2e-6)]).toContain(actual.token);
        } else {
          expect(actual.logprob).toBeCloseTo(expected.logprob, 4);
        }
        expect(actual.topTokens).toEqual(expected.topTokens);
        actual.topLogprobs.forEach((logprob, index) => {
          expect(logprob).toBeCloseTo(expected.topLogprobs[index]!, 4);
        });
      }),
      { numRuns: runs, seed: 31 },
    );
    // Numbers that fall within rounding of an edge are rare.
    expect(unlike).toBeLessThanOrEqual(runs / 500);
  });
});
