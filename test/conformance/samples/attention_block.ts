import type { DType } from "../../../src/base/dtype.ts";
import type { AttentionBlockAttributes, AttentionOp } from "../../../src/graph/ops.ts";
import { referenceRules } from "../../../src/graph/rules/reference.ts";
import { integers, normal, type SampleTensor, tensor } from "./draw.ts";
import type { OpSamples } from "./sample.ts";

interface Case {
  readonly name: string;
  readonly offsets: readonly number[];
  readonly queries: readonly number[];
  readonly keys: readonly number[];
  readonly heads: number;
  readonly groups: number;
  readonly size: number;
  readonly causal?: boolean;
  readonly window?: number;
}

const range = (first: number, count: number, step = 1): number[] =>
  Array.from({ length: count }, (_, i) => first + i * step);

const cases: readonly Case[] = [
  {
    name: "the block of the queries themselves",
    offsets: [0, 9],
    queries: range(3, 5),
    keys: range(3, 5),
    heads: 2,
    groups: 2,
    size: 3,
  },
  {
    name: "keys that are all past",
    offsets: [0, 140],
    queries: range(70, 67),
    keys: range(0, 70),
    heads: 2,
    groups: 1,
    size: 24,
  },
  {
    name: "round-robin tokens, sequences that end within the block",
    offsets: [0, 5, 5, 133, 300],
    queries: range(1, 150, 2),
    keys: range(0, 150, 2),
    heads: 4,
    groups: 2,
    size: 40,
  },
  {
    name: "a window, padding among queries and keys",
    offsets: [0, 200],
    queries: [...range(60, 70), -1, -1],
    keys: [...range(20, 66), -1],
    heads: 2,
    groups: 2,
    size: 16,
    window: 30,
  },
  {
    name: "not causal",
    offsets: [0, 33, 90],
    queries: range(40, 33),
    keys: range(20, 50),
    heads: 3,
    groups: 1,
    size: 17,
    causal: false,
  },
  {
    name: "places in no order",
    offsets: [0, 40, 100],
    queries: range(0, 50).map((i) => (i * 37) % 100),
    keys: range(0, 50).map((i) => (i * 41 + 7) % 100),
    heads: 2,
    groups: 1,
    size: 8,
  },
];

const attributesOf = ({ size, causal, window }: Case): AttentionBlockAttributes => ({
  scale: 1 / Math.sqrt(size),
  causal: causal ?? true,
  window: window ?? 0,
  fraction: 0.5,
});

const wide = ({ shape, values }: SampleTensor) => ({ shape, values: Float64Array.from(values) });

function placesOf({ queries, keys, offsets }: Case): SampleTensor[] {
  return [queries, keys, offsets].map((places) => integers([places.length], places));
}

/** Queries that see no key keep a logsumexp that is finite: samples compare every number. */
const floor = (values: Float64Array) => [...values].map((value) => Math.max(value, -30));

function operandsOf(sample: Case, dtype: DType) {
  const { heads, groups, size, queries, keys } = sample;
  const q = normal([queries.length, heads, size], dtype);
  const k = normal([keys.length, groups, size], dtype);
  const v = normal([keys.length, groups, size], dtype);
  // What another block, of which every query sees all, gave before.
  const before = [
    normal(q.shape, "f32"),
    tensor([heads, queries.length], "f32", new Array(heads * queries.length).fill(0.7)),
  ];
  return { q, k, v, before, places: placesOf(sample) };
}

function gradientOperands(sample: Case, dtype: DType): SampleTensor[] {
  const { q, k, v, places } = operandsOf(sample, dtype);
  const shapes = [q.shape, [sample.heads, q.shape[0]!]];
  const rule = referenceRules.attention_block;
  const results = rule([q, k, v, ...places].map(wide), { ...attributesOf(sample), dtype: "f32" }, shapes);
  const logsumexp = tensor(shapes[1]!, "f32", floor(results[1]!));
  return [normal(q.shape, dtype), q, k, v, logsumexp, normal(shapes[1]!, "f32"), ...places];
}

const floats = ["f32", "bf16", "f16"] as const;
type BlockOp = Extract<AttentionOp, "attention_block" | "attention_block_gradient" | "attention_delta">;

/** Samples of attention to blocks of keys. */
export const attentionBlockSamples: { readonly [Op in BlockOp]: OpSamples<Op> } = {
  attention_block: {
    dtypes: floats,
    make: (dtype) =>
      cases.flatMap((sample) => {
        const { q, k, v, before, places } = operandsOf(sample, dtype);
        const common = { reduction: sample.keys.length, forwardOnly: true };
        return [
          {
            ...common,
            name: sample.name,
            inputs: [q, k, v, ...places],
            attributes: { ...attributesOf(sample), dtype: "f32" as const },
          },
          {
            ...common,
            name: `${sample.name}, after another`,
            inputs: [q, k, v, ...places, ...before],
            attributes: { ...attributesOf(sample), dtype },
          },
        ];
      }),
  },
  attention_block_gradient: {
    dtypes: floats,
    make: (dtype) =>
      cases.flatMap((sample) => {
        const inputs = gradientOperands(sample, dtype);
        const attributes = attributesOf(sample);
        const reduction = Math.max(
          sample.keys.length,
          (sample.queries.length * sample.heads) / sample.groups,
        );
        const sum = (operand: number) => normal(inputs[operand]!.shape, "f32");
        return [
          { name: sample.name, inputs, attributes: { ...attributes, sums: "none" as const }, reduction },
          {
            name: `${sample.name}, added to the gradient of queries`,
            inputs: [...inputs, sum(1)],
            attributes: { ...attributes, sums: "queries" as const },
            reduction,
          },
          {
            name: `${sample.name}, added to the gradients of keys and values`,
            inputs: [...inputs, sum(2), sum(3)],
            attributes: { ...attributes, sums: "keys" as const },
            reduction,
          },
        ];
      }),
  },
  attention_delta: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "some heads",
        inputs: [normal([37, 3, 21], dtype), normal([37, 3, 21], dtype)],
        attributes: {},
        reduction: 21,
      },
    ],
  },
};
