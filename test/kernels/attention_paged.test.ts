import { describe, expect, test } from "vitest";
import { type DType, roundTo } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import type { IsaName } from "../../src/runtime/native/addon.ts";
import { attentionReference } from "./attention_reference.ts";
import { attentionCase } from "./attention_support.ts";
import {
  bytesOf,
  elementsOf,
  randomTensor,
  relativeError,
  runKernel,
  type TestTensor,
  tensorOf,
  valuesOf,
  variantsOf,
  zeros,
} from "./support.ts";

/** Sequences as [context, queries]: the queries are the last tokens of the context. */
interface PagedCase {
  readonly sequences: readonly (readonly [context: number, queries: number])[];
  readonly heads: number;
  readonly groups: number;
  readonly size: number;
  readonly window: number;
  readonly blockSize: number;
}

function pagedCase(given: Partial<PagedCase> & Pick<PagedCase, "sequences">): PagedCase {
  return { heads: 4, groups: 2, size: 32, window: 0, blockSize: 16, ...given };
}

const cases: Record<string, PagedCase> = {
  "decoding, contexts of many lengths": pagedCase({
    sequences: [
      [1, 1],
      [63, 1],
      [0, 0],
      [64, 1],
      [700, 1],
      [17, 0],
      [1100, 1],
    ],
  }),
  "blocks of 1": pagedCase({
    sequences: [
      [90, 1],
      [130, 40],
    ],
    blockSize: 1,
  }),
  "blocks of 64": pagedCase({
    sequences: [
      [90, 1],
      [130, 40],
    ],
    blockSize: 64,
  }),
  "chunks of a prefill beside decoding": pagedCase({
    sequences: [
      [200, 1],
      [300, 100],
      [65, 65],
      [513, 3],
    ],
  }),
  "one key/value head": pagedCase({
    sequences: [
      [520, 1],
      [75, 30],
    ],
    heads: 7,
    groups: 1,
    size: 40,
  }),
  "a head each": pagedCase({
    sequences: [
      [520, 5],
      [75, 30],
    ],
    heads: 3,
    groups: 3,
    size: 80,
  }),
  "a window": pagedCase({
    sequences: [
      [1200, 1],
      [1300, 4],
      [300, 50],
    ],
    window: 70,
  }),
  "odd sizes": pagedCase({
    sequences: [
      [70, 1],
      [70, 20],
    ],
    size: 13,
    heads: 2,
    groups: 1,
  }),
  "wide heads": pagedCase({
    sequences: [
      [70, 2],
      [70, 20],
    ],
    size: 256,
    heads: 2,
    groups: 1,
  }),
};

/** What the rows at `slots` of a cache of i8 stand for, in float64. */
function dequantize(cache: TestTensor, scales: TestTensor, slots: readonly number[]): TestTensor {
  const [, groups, size] = cache.shape as [number, number, number];
  const [numbers, factors] = [valuesOf(cache), valuesOf(scales)];
  const values = slots.flatMap((slot) =>
    Array.from({ length: groups * size }, (_, i) => {
      return numbers[slot * groups * size + i]! * factors[slot * groups + Math.floor(i / size)]!;
    }),
  );
  return tensorOf("f64", [slots.length, groups, size], values);
}

/** Writes keys and values into shuffled blocks of a cache whose other slots hold NaN. */
function fill(options: PagedCase, dtypes: { q: DType; cache: DType }, isa: IsaName) {
  const { sequences, heads, groups, size, blockSize } = options;
  const queries = sequences.reduce((sum, [, count]) => sum + count, 0);
  const tokens = sequences.reduce((sum, [context]) => sum + context, 0);
  const blocksOf = sequences.map(([context]) => Math.ceil(context / blockSize));
  const width = Math.max(...blocksOf) + 1;
  const blocks = blocksOf.reduce((sum, count) => sum + count, 0) + 2;
  const stream = new PhiloxStream(9);
  const order = Array.from({ length: blocks }, (_, i) => i);
  for (let i = blocks - 1; i > 0; i--) {
    const j = stream.nextBelow(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const tables = new Array<number>(sequences.length * width).fill(-1);
  const slots: number[] = [];
  for (const [s, [context]] of sequences.entries()) {
    for (let block = 0; block < blocksOf[s]!; block++) tables[s * width + block] = order.pop()!;
    for (let p = 0; p < context; p++) {
      slots.push(tables[s * width + Math.floor(p / blockSize)]! * blockSize + (p % blockSize));
    }
  }
  const q = randomTensor(dtypes.q, [queries, heads, size], 1);
  const written = dtypes.cache === "i8" ? "f32" : dtypes.cache;
  const k = randomTensor(written, [tokens, groups, size], 2);
  const v = randomTensor(written, [tokens, groups, size], 3);
  const shape = [blocks * blockSize, groups, size];
  const nothing = (dtype: DType, sizes: readonly number[]) =>
    tensorOf(dtype, sizes, new Float64Array(elementsOf(sizes)).fill(dtype === "i8" ? 127 : NaN));
  const places = tensorOf("i32", [slots.length], slots);
  const caches = [k, v].map((values) => {
    const cache = nothing(dtypes.cache, shape);
    if (dtypes.cache !== "i8") {
      runKernel("cache_write", isa, [cache, values, places], [cache]);
      return { cache, scales: undefined, meant: values };
    }
    const scales = nothing("f32", shape.slice(0, 2));
    runKernel("cache_write_quantized", isa, [cache, scales, values, places], [cache, scales]);
    return { cache, scales, meant: dequantize(cache, scales, slots) };
  });
  const offsets = [0];
  for (const [, count] of sequences) offsets.push(offsets.at(-1)! + count);
  const inputs = [
    q,
    ...caches.map(({ cache }) => cache),
    tensorOf("i32", [offsets.length], offsets),
    tensorOf(
      "i32",
      [sequences.length],
      sequences.map(([context]) => context),
    ),
    tensorOf("i32", [sequences.length, width], tables),
    ...caches.flatMap(({ scales }) => scales ?? []),
  ];
  return { q, k: caches[0]!.meant, v: caches[1]!.meant, inputs };
}

function run(
  options: PagedCase,
  inputs: TestTensor[],
  isa: IsaName,
  threads = 2,
  splits: readonly number[] = [],
): TestTensor {
  const out = zeros(inputs[0]!.dtype, inputs[0]!.shape);
  const ran = runKernel(
    "paged_attention",
    isa,
    inputs,
    [out],
    [1 / Math.sqrt(options.size), options.window, options.blockSize, ...splits],
    threads,
  );
  expect(ran).toBe(isa);
  return out;
}

/** Dense attention in float64 over each sequence alone, of which the last rows are wanted. */
function reference(options: PagedCase, q: TestTensor, k: TestTensor, v: TestTensor): Float64Array {
  const { heads, groups, size, window } = options;
  const rows: number[] = [];
  let firstToken = 0;
  let firstQuery = 0;
  for (const [context, queries] of options.sequences) {
    const dense = attentionCase({ offsets: [0, context], heads, groups, size, window });
    const padded = new Float64Array(context * heads * size);
    padded.set(
      valuesOf(q).subarray(firstQuery * heads * size, (firstQuery + queries) * heads * size),
      (context - queries) * heads * size,
    );
    const part = (values: TestTensor) =>
      valuesOf(values).subarray(firstToken * groups * size, (firstToken + context) * groups * size);
    const { out } = attentionReference(dense, padded, part(k), part(v), context - queries);
    rows.push(...out.subarray((context - queries) * heads * size));
    firstToken += context;
    firstQuery += queries;
  }
  return Float64Array.from(rows);
}

const isas = ["scalar", ...variantsOf("paged_attention")] as const;

describe.each(Object.keys(cases))("paged_attention: %s", (name) => {
  const options = cases[name]!;
  for (const [q, cache] of [
    ["f32", "f32"],
    ["bf16", "bf16"],
    ["f32", "bf16"],
    ["f32", "f16"],
    ["f32", "i8"],
    ["bf16", "i8"],
  ] as const) {
    const given = fill(options, { q, cache }, "scalar");
    const expected = reference(options, given.q, given.k, given.v);
    test.each(isas)(`${q} over a cache of ${cache} on %s`, (isa) => {
      const out = valuesOf(run(options, given.inputs, isa));
      const longest = Math.max(...options.sequences.map(([context]) => context));
      expect(relativeError(out, expected)).toBeLessThan(q === "f32" ? 1e-6 * Math.sqrt(longest) : 4e-3);
    });
  }
});

describe.each(isas)("paged_attention on %s", (isa) => {
  test("the bits depend neither on the threads nor on the other sequences", () => {
    const options = pagedCase({
      sequences: [
        [1500, 1],
        [200, 90],
        [40, 1],
      ],
    });
    for (const [dtype, cache] of [
      ["f32", "f32"],
      ["bf16", "bf16"],
      ["f32", "i8"],
    ] as const) {
      const given = fill(options, { q: dtype, cache }, isa);
      const [first, ...others] = [1, 2, 3].map((threads) =>
        bytesOf(run(options, given.inputs, isa, threads)),
      );
      for (const other of others) expect(Buffer.compare(other, first!)).toBe(0);
      // The first sequence on its own.
      const [q, k, v, , , tables, ...scales] = given.inputs as [
        TestTensor,
        TestTensor,
        TestTensor,
        TestTensor,
        TestTensor,
        TestTensor,
        ...TestTensor[],
      ];
      const rowBytes = (options.heads * options.size * q.data.byteLength) / valuesOf(q).length;
      const alone = run(
        options,
        [
          { ...q, shape: [1, options.heads, options.size] },
          k,
          v,
          tensorOf("i32", [2], [0, 1]),
          tensorOf("i32", [1], [1500]),
          { ...tables, shape: [1, tables.shape[1]!] },
          ...scales,
        ],
        isa,
      );
      expect(Buffer.compare(bytesOf(alone), first!.subarray(0, rowBytes))).toBe(0);
    }
  });
});

describe.each(variantsOf("paged_attention"))("the pieces of a context on %s", (isa) => {
  test("give what the context as a whole gives, for contexts of many lengths", () => {
    const lengths = [1, 127, 128, 129, 300, 4500];
    for (const cache of ["f32", "i8"] as const) {
      const options = pagedCase({ sequences: lengths.map((context) => [context, 1] as const), size: 40 });
      const given = fill(options, { q: "f32", cache }, isa);
      const split = valuesOf(run(options, given.inputs, isa));
      for (const pieces of [1, 3, 64]) {
        const other = valuesOf(run(options, given.inputs, isa, 2, [pieces]));
        const rowSize = options.heads * options.size;
        for (let s = 0; s < lengths.length; s++) {
          const row = (values: Float64Array) => values.subarray(s * rowSize, (s + 1) * rowSize);
          expect(relativeError(row(split), row(other))).toBeLessThan(1e-5);
        }
      }
    }
  });
});

describe.each(["scalar", ...variantsOf("cache_write_quantized")] as const)(
  "cache_write_quantized on %s",
  (isa) => {
    test("is off by half a step at the most, whatever the rows' sizes; skips slots of -1", () => {
      for (const dtype of ["f32", "bf16", "f16"] as const) {
        for (const size of [1, 7, 16, 40, 128]) {
          const [slots, tokens, groups] = [9, 6, 3];
          const places = [8, -1, 0, 3, 4, 7];
          const draws = valuesOf(randomTensor("f32", [tokens, groups, size], size));
          // The scales of rows lie far apart; one row is zero.
          const values = tensorOf(
            dtype,
            [tokens, groups, size],
            draws.map((value, i) => {
              const row = Math.floor(i / size);
              return row === 7 ? 0 : value * 2 ** ((row % 5) * 4 - 8);
            }),
          );
          const cache = tensorOf(
            "i8",
            [slots, groups, size],
            new Float64Array(slots * groups * size).fill(-3),
          );
          const scales = tensorOf("f32", [slots, groups], new Float64Array(slots * groups).fill(7));
          const ran = runKernel(
            "cache_write_quantized",
            isa,
            [cache, scales, values, tensorOf("i32", [tokens], places)],
            [cache, scales],
          );
          expect(ran).toBe(isa);
          const [numbers, factors, exact] = [valuesOf(cache), valuesOf(scales), valuesOf(values)];
          const worst = { untouched: 0, scale: 0, value: 0 };
          for (let place = 0; place < slots * groups; place++) {
            const token = places.indexOf(Math.floor(place / groups));
            const factor = factors[place]!;
            const stored = numbers.subarray(place * size, (place + 1) * size);
            if (token === -1) {
              if (factor !== 7 || stored.some((value) => value !== -3)) worst.untouched++;
              continue;
            }
            const first = (token * groups + (place % groups)) * size;
            const row = exact.subarray(first, first + size);
            const largest = Math.max(...row.map(Math.abs));
            worst.scale = Math.max(worst.scale, Math.abs(factor * 127 - largest) / (largest || 1));
            row.forEach((value, i) => {
              const error = Math.abs(stored[i]! * factor - value);
              worst.value = Math.max(worst.value, factor === 0 ? error : error / factor);
            });
          }
          expect(worst.untouched).toBe(0);
          expect(worst.scale).toBeLessThanOrEqual(1e-7);
          expect(worst.value).toBeLessThanOrEqual(0.5 + 1e-4);
        }
      }
    });

    test("gives the bits of the scalar kernel on any number of threads", () => {
      const values = randomTensor("f32", [300, 4, 64], 5);
      const slots = tensorOf(
        "i32",
        [300],
        Array.from({ length: 300 }, (_, i) => 299 - i),
      );
      const write = (on: IsaName, threads: number): Uint8Array[] => {
        const outputs = [zeros("i8", [300, 4, 64]), zeros("f32", [300, 4])];
        runKernel("cache_write_quantized", on, [...outputs, values, slots], outputs, [], threads);
        return outputs.map(bytesOf);
      };
      const expected = write("scalar", 1);
      for (const threads of [1, 2, 3]) expect(write(isa, threads)).toEqual(expected);
    });
  },
);

describe("cache_write", () => {
  test("writes rows into their slots, rounds, and skips slots of -1", () => {
    for (const cacheDtype of ["f32", "bf16", "f16"] as const) {
      const cache = zeros(cacheDtype, [4, 2, 3]);
      const values = tensorOf(
        "f32",
        [3, 2, 3],
        Array.from({ length: 18 }, (_, i) => i + 1 / 1024),
      );
      runKernel("cache_write", "scalar", [cache, values, tensorOf("i32", [3], [2, -1, 0])], [cache]);
      const row = (first: number) =>
        Array.from({ length: 6 }, (_, i) => roundTo(cacheDtype, first + i + 1 / 1024));
      const empty = new Array(6).fill(0);
      expect([...valuesOf(cache)]).toEqual([...row(12), ...empty, ...row(0), ...empty]);
    }
  });
});
