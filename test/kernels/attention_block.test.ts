import { describe, expect, test } from "vitest";
import type { DType } from "../../src/base/dtype.ts";
import type { IsaName } from "../../src/runtime/native/addon.ts";
import { type AttentionCase, attentionGradientReference, attentionReference } from "./attention_reference.ts";
import { attentionCase, operandsOf } from "./attention_support.ts";
import {
  bytesOf,
  relativeError,
  runKernel,
  type TestTensor,
  tensorOf,
  valuesOf,
  variantsOf,
  zeros,
} from "./support.ts";

/**
 * Attention over all tokens, cut into parts: every part's queries attend to one part's keys after another. Compared
 * with float64 math over all tokens, which knows of no blocks.
 */
const isas: readonly IsaName[] = ["scalar", ...variantsOf("attention_block")];

/** The tokens of each part, by the name of how they are dealt. */
const layouts: Record<string, (tokens: number, parts: number) => number[][]> = {
  contiguous: (tokens, parts) => deal(tokens, parts, (token) => Math.floor((token * parts) / tokens)),
  "round-robin": (tokens, parts) => deal(tokens, parts, (token) => token % parts),
  shuffled: (tokens, parts) =>
    deal(tokens, parts, (token) => ((token * 7919) % 104729) % parts).map((part) => part.reverse()),
};

function deal(tokens: number, parts: number, partOf: (token: number) => number): number[][] {
  const dealt = Array.from({ length: parts }, (): number[] => []);
  for (let token = 0; token < tokens; token++) dealt[partOf(token)]!.push(token);
  return dealt;
}

/** Rows of the first axis, or of the second one of statistics. */
function take(tensor: TestTensor, rows: readonly number[]): TestTensor {
  const [, ...inner] = tensor.shape as [number, ...number[]];
  const size = inner.reduce((a, b) => a * b, 1);
  const values = valuesOf(tensor);
  const taken = new Float64Array(rows.length * size);
  rows.forEach((row, i) => {
    taken.set(values.subarray(row * size, (row + 1) * size), i * size);
  });
  return tensorOf(tensor.dtype, [rows.length, ...inner], taken);
}

function put(target: Float64Array, tensor: TestTensor, rows: readonly number[]): void {
  const size = tensor.data.length / Math.max(1, rows.length);
  const values = valuesOf(tensor);
  rows.forEach((row, i) => {
    target.set(values.subarray(i * size, (i + 1) * size), row * size);
  });
}

function putStatistics(
  target: Float64Array,
  tensor: TestTensor,
  rows: readonly number[],
  tokens: number,
): void {
  valuesOf(tensor).forEach((value, i) => {
    target[Math.floor(i / rows.length) * tokens + rows[i % rows.length]!] = value;
  });
}

const places = (rows: readonly number[]): TestTensor => tensorOf("i32", [rows.length], rows);

/** Runs all parts against all parts, forward and backward. Sums go on in place. */
function runBlocks(options: AttentionCase, dtype: DType, parts: number[][], isa: IsaName, threads = 2) {
  const given = operandsOf(options, dtype);
  const { heads, groups, size, offsets } = options;
  const tokens = offsets.at(-1)!;
  const attributes = [options.scale, Number(options.causal), options.window];
  const own = parts.map((rows) => ({
    rows,
    q: take(given.q, rows),
    k: take(given.k, rows),
    v: take(given.v, rows),
    dOut: take(given.dOut, rows),
    places: places(rows),
    dK: zeros("f32", [rows.length, groups, size]),
    dV: zeros("f32", [rows.length, groups, size]),
  }));
  const out = new Float64Array(tokens * heads * size);
  const logsumexp = new Float64Array(heads * tokens);
  const [dQ, dK, dV] = [
    new Float64Array(out.length),
    ...[0, 0].map(() => new Float64Array(tokens * groups * size)),
  ];
  own.forEach((part, index) => {
    const order = own.map((_, step) => own[(index + own.length - step) % own.length]!);
    const shape = [part.rows.length, heads, size];
    const lse = zeros("f32", [heads, part.rows.length]);
    let result = zeros("f32", shape);
    order.forEach((other, step) => {
      const last = step === order.length - 1;
      const before = step === 0 ? [] : [result, lse];
      // The last block rounds to the dtype; the others go on in the memory of what was before.
      const target = last ? zeros(dtype, shape) : result;
      const inputs = [part.q, other.k, other.v, part.places, other.places, given.offsets, ...before];
      expect(runKernel("attention_block", isa, inputs, [target, lse], attributes, threads)).toBe(isa);
      result = target;
    });
    put(out, result, part.rows);
    putStatistics(logsumexp, lse, part.rows, tokens);
    const delta = zeros("f32", lse.shape);
    runKernel("attention_delta", isa, [part.dOut, result], [delta], [], threads);
    const dQueries = zeros("f32", shape);
    order.forEach((other, step) => {
      const operands = [
        part.dOut,
        part.q,
        other.k,
        other.v,
        lse,
        delta,
        part.places,
        other.places,
        given.offsets,
      ];
      const run = (before: TestTensor[], outputs: TestTensor[], sums: number): void => {
        runKernel(
          "attention_block_gradient",
          isa,
          [...operands, ...before],
          outputs,
          [...attributes, sums],
          threads,
        );
      };
      const scratch = [zeros("f32", shape), zeros("f32", other.dK.shape), zeros("f32", other.dV.shape)];
      run(step === 0 ? [] : [dQueries], [dQueries, scratch[1]!, scratch[2]!], step === 0 ? 0 : 1);
      run([other.dK, other.dV], [scratch[0]!, other.dK, other.dV], 2);
    });
    put(dQ!, dQueries, part.rows);
  });
  for (const part of own) {
    put(dK!, part.dK, part.rows);
    put(dV!, part.dV, part.rows);
  }
  return { given, out, logsumexp, dQ: dQ!, dK: dK!, dV: dV! };
}

const cases: Record<string, AttentionCase> = {
  "one sequence": attentionCase({ offsets: [0, 290], size: 64 }),
  "many sequences": attentionCase({ offsets: [0, 0, 1, 6, 71, 71, 199, 200] }),
  "fewer tokens than parts": attentionCase({ offsets: [0, 2] }),
  "every pair": attentionCase({ offsets: [0, 70, 180], causal: false }),
  "grouped heads": attentionCase({ offsets: [0, 200, 377], heads: 6, groups: 2, size: 24 }),
  "one key/value head": attentionCase({ offsets: [0, 300], heads: 5, groups: 1, size: 40 }),
  "a window": attentionCase({ offsets: [0, 250, 260], window: 90 }),
  "a window of few keys": attentionCase({ offsets: [0, 150], window: 7 }),
  "a window without causality": attentionCase({ offsets: [0, 210], window: 65, causal: false }),
  "a negative scale": attentionCase({ offsets: [0, 190], scale: -0.3 }),
  ...Object.fromEntries(
    [1, 3, 101, 128].map((size) => [
      `heads of ${size}`,
      attentionCase({ offsets: [0, 167, 170], heads: 2, groups: 1, size }),
    ]),
  ),
};

/** Relative Frobenius bounds: float32 math over `length`, or the rounding of 16-bit operands. */
function boundOf(dtype: DType, options: AttentionCase): number {
  return dtype === "f32" ? 1e-6 * Math.sqrt(Math.max(1, options.offsets.at(-1)!)) : 4e-3;
}

function referenceOf(options: AttentionCase, dtype: DType) {
  const { q, k, v, dOut } = operandsOf(options, dtype);
  const [queries, keys, values, gradient] = [q, k, v, dOut].map(valuesOf) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  return {
    ...attentionReference(options, queries, keys, values),
    ...attentionGradientReference(options, gradient, queries, keys, values),
  };
}

describe.each(Object.keys(cases))("%s", (name) => {
  const options = cases[name]!;
  const tokens = options.offsets.at(-1)!;
  const dtypes: DType[] = name === "grouped heads" ? ["f32", "bf16", "f16"] : ["f32", "bf16"];
  // Products of bf16 with heads of one number round more than they compute.
  if (options.size === 1) dtypes.pop();
  const dealt = name === "one sequence" || name === "many sequences" ? Object.keys(layouts) : ["round-robin"];
  test.each(dtypes)("%s", (dtype) => {
    const expected = referenceOf(options, dtype);
    const bound = boundOf(dtype, options);
    for (const layout of dealt) {
      for (const isa of isas) {
        const actual = runBlocks(options, dtype, layouts[layout]!(tokens, 3), isa);
        for (const result of ["out", "logsumexp", "dQ", "dK", "dV"] as const) {
          const error = relativeError(actual[result], expected[result]);
          expect(error, `${result} of ${layout} tokens on ${isa}`).toBeLessThan(bound);
        }
      }
    }
  });
});

describe("attention_block", () => {
  const options = attentionCase({ offsets: [0, 300], heads: 2, groups: 1, size: 48 });

  test.each(isas)("gives the same bits on one thread and on four, on %s", (isa) => {
    const parts = layouts["round-robin"]!(300, 2);
    for (const dtype of ["f32", "bf16"] as const) {
      const [one, four] = [1, 4].map((threads) => runBlocks(options, dtype, parts, isa, threads));
      for (const name of ["out", "logsumexp", "dQ", "dK", "dV"] as const) {
        expect(four![name], name).toEqual(one![name]);
      }
    }
  });

  test.each(isas)("leaves queries that see no key at zero, or as they were, on %s", (isa) => {
    const given = operandsOf(attentionCase({ offsets: [0, 70], size: 20 }), "f32");
    const [queries, keys] = [
      places(valuesOf(given.q).length ? [...Array(70).keys()] : []),
      places(Array.from({ length: 70 }, (_, i) => i + 100)),
    ];
    const offsets = tensorOf("i32", [2], [0, 200]);
    const inputs = [given.q, given.k, given.v, queries!, keys!, offsets];
    const out = tensorOf("f32", given.q.shape, new Array(given.q.data.length).fill(3));
    const lse = zeros("f32", [2, 70]);
    runKernel("attention_block", isa, inputs, [out, lse], [0.2, 1, 0]);
    expect([...valuesOf(out)].every((value) => value === 0)).toBe(true);
    expect([...valuesOf(lse)].every((value) => value === Math.fround(-1e30))).toBe(true);

    const before = [
      given.dOut,
      tensorOf(
        "f32",
        [2, 70],
        Array.from({ length: 140 }, (_, i) => i / 7),
      ),
    ];
    const kept = [zeros("f32", given.q.shape), zeros("f32", [2, 70])];
    runKernel("attention_block", isa, [...inputs, ...before], kept, [0.2, 1, 0]);
    kept.forEach((tensor, i) => {
      expect(bytesOf(tensor)).toEqual(bytesOf(before[i]!));
    });
  });
});
