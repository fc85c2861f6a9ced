import type { DType } from "../../../src/base/dtype.ts";
import type { AttentionAttributes, AttentionOp } from "../../../src/graph/ops.ts";
import { referenceRules } from "../../../src/graph/rules/reference.ts";
import { attentionBlockSamples } from "./attention_block.ts";
import { integers, normal, positive, randomIntegers, type SampleTensor, tensor } from "./draw.ts";
import type { OpSamples } from "./sample.ts";

interface Case {
  readonly name: string;
  readonly offsets: readonly number[];
  readonly heads: number;
  readonly groups: number;
  readonly size: number;
  readonly causal: boolean;
  readonly window: number;
}

const small: readonly Case[] = [
  { name: "one causal sequence", offsets: [0, 6], heads: 2, groups: 2, size: 3, causal: true, window: 0 },
  {
    name: "three sequences, grouped heads",
    offsets: [0, 3, 4, 9],
    heads: 4,
    groups: 2,
    size: 3,
    causal: true,
    window: 0,
  },
  { name: "a window", offsets: [0, 7, 9], heads: 2, groups: 1, size: 5, causal: true, window: 3 },
  { name: "not causal", offsets: [0, 2, 6], heads: 3, groups: 1, size: 4, causal: false, window: 0 },
  {
    name: "a window that is not causal",
    offsets: [0, 5],
    heads: 1,
    groups: 1,
    size: 4,
    causal: false,
    window: 2,
  },
  { name: "an empty sequence", offsets: [0, 3, 3, 5], heads: 2, groups: 2, size: 2, causal: true, window: 0 },
  { name: "a window of one", offsets: [0, 4], heads: 1, groups: 1, size: 2, causal: true, window: 1 },
];

const large: readonly Case[] = [
  { name: "odd sizes", offsets: [0, 67, 70, 203], heads: 4, groups: 2, size: 40, causal: true, window: 0 },
  { name: "a large head", offsets: [0, 81], heads: 2, groups: 1, size: 128, causal: true, window: 0 },
  {
    name: "a window over blocks",
    offsets: [0, 150, 199],
    heads: 2,
    groups: 2,
    size: 64,
    causal: true,
    window: 70,
  },
  {
    name: "odd sizes, not causal",
    offsets: [0, 33, 131],
    heads: 3,
    groups: 3,
    size: 17,
    causal: false,
    window: 0,
  },
];

const attributesOf = ({ size, causal, window }: Case): AttentionAttributes => ({
  scale: 1 / Math.sqrt(size),
  causal,
  window,
});

function operandsOf({ offsets, heads, groups, size }: Case, dtype: DType): SampleTensor[] {
  const tokens = offsets.at(-1)!;
  return [
    normal([tokens, heads, size], dtype),
    normal([tokens, groups, size], dtype),
    normal([tokens, groups, size], dtype),
    integers([offsets.length], offsets),
  ];
}

/** Operands of the gradient: the forward's, its results, and a gradient of the output. */
function gradientOperands(sample: Case, dtype: DType): SampleTensor[] {
  const [q, k, v, offsets] = operandsOf(sample, dtype) as [
    SampleTensor,
    SampleTensor,
    SampleTensor,
    SampleTensor,
  ];
  const operands = [q, k, v, offsets].map(({ shape, values }) => ({
    shape,
    values: Float64Array.from(values),
  }));
  const statistics = [sample.heads, q.shape[0]!];
  const [out, logsumexp] = referenceRules.attention(operands, attributesOf(sample), [q.shape, statistics]);
  return [
    normal(q.shape, dtype),
    q,
    k,
    v,
    tensor(q.shape, dtype, [...out!]),
    tensor(statistics, "f32", [...logsumexp!]),
    offsets,
  ];
}

/** Whole numbers of a cache in i8, and scales that make them about as large as others. */
const bytes = (shape: readonly number[]): SampleTensor => ({
  ...randomIntegers(shape, -127, 128),
  dtype: "i8",
});
const scales = (shape: readonly number[]): SampleTensor =>
  tensor(
    shape,
    "f32",
    positive(shape, "f32").values.map((value) => value / 100),
  );

const floats = ["f32", "bf16", "f16"] as const;

/** Samples of the attention ops. */
export const attentionSamples: { readonly [Op in AttentionOp]: OpSamples<Op> } = {
  attention: {
    dtypes: floats,
    make: (dtype) =>
      [...small, ...large].map((sample) => ({
        name: sample.name,
        inputs: operandsOf(sample, dtype),
        attributes: attributesOf(sample),
        reduction: sample.offsets.at(-1)!,
        forwardOnly: large.includes(sample),
      })),
  },
  attention_gradient: {
    dtypes: floats,
    make: (dtype) =>
      [...small, ...large].map((sample) => ({
        name: sample.name,
        inputs: gradientOperands(sample, dtype),
        attributes: attributesOf(sample),
        reduction: sample.offsets.at(-1)! * (sample.heads / sample.groups),
      })),
  },
  ...attentionBlockSamples,
  cache_write: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "some tokens skipped",
        inputs: [normal([7, 2, 3], dtype), normal([4, 2, 3], dtype), integers([4], [6, -1, 0, 3])],
        attributes: {},
      },
      {
        name: "rounded to the cache's dtype",
        inputs: [normal([5, 1, 4], dtype), normal([2, 1, 4], "f32"), integers([2], [1, 4])],
        attributes: {},
      },
    ],
  },
  cache_write_quantized: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "some tokens skipped, a row of zeros",
        inputs: [
          tensor([7, 2, 19], "i8", new Array(7 * 2 * 19).fill(5)),
          normal([7, 2], "f32"),
          tensor([5, 2, 19], dtype, [...normal([4, 2, 19], dtype).values, ...new Array(38).fill(0)]),
          integers([5], [6, -1, 0, 3, 2]),
        ],
        attributes: {},
      },
      {
        name: "many tokens, rows of many sizes",
        inputs: [
          tensor([70, 3, 64], "i8", new Array(70 * 3 * 64).fill(0)),
          normal([70, 3], "f32"),
          tensor(
            [70, 3, 64],
            dtype,
            normal([70, 3, 64], "f32").values.map(
              (value, i) => value * 1.5 ** ((Math.floor(i / 64) % 40) - 20),
            ),
          ),
          integers(
            [70],
            Array.from({ length: 70 }, (_, i) => (i * 3) % 70),
          ),
        ],
        attributes: {},
      },
    ],
  },
  cache_copy: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "a block that is overwritten and then copied, and one passed over",
        inputs: [normal([13, 2, 3], dtype), integers([4], [1, 0, 2, 3]), integers([4], [0, 3, -1, 3])],
        attributes: { blockSize: 3 },
      },
      {
        name: "slots of one number, blocks of one slot",
        inputs: [normal([5], dtype), integers([2], [4, 0]), integers([2], [1, 4])],
        attributes: { blockSize: 1 },
      },
      {
        name: "bytes",
        inputs: [tensor([6, 2], "i8", [...Array(12).keys()]), integers([1], [2]), integers([1], [0])],
        attributes: { blockSize: 2 },
      },
      {
        name: "blocks that threads share",
        inputs: [normal([192, 2, 128], dtype), integers([2], [0, 2]), integers([2], [1, 0])],
        attributes: { blockSize: 64 },
      },
    ],
  },
  paged_attention: {
    dtypes: floats,
    make: (dtype) => [
      ...[0, 5].map((window) => ({
        name: window === 0 ? "prompts and single tokens" : "within a window",
        inputs: [
          normal([6, 4, 5], dtype),
          normal([32, 2, 5], dtype),
          normal([32, 2, 5], dtype),
          integers([4], [0, 4, 5, 6]),
          integers([3], [6, 1, 11]),
          integers([3, 3], [2, 5, 0, 7, 0, 0, 1, 6, 3]),
        ],
        attributes: { scale: 0.4, window, blockSize: 4 },
        reduction: 11,
      })),
      {
        name: "a quantized cache, decoding and a prompt",
        inputs: [
          normal([21, 4, 24], dtype),
          bytes([128, 2, 24]),
          bytes([128, 2, 24]),
          integers([3], [0, 1, 21]),
          integers([2], [70, 40]),
          integers([2, 5], [3, 1, 6, 2, 0, 7, 5, 4, 0, 0]),
          scales([128, 2]),
          scales([128, 2]),
        ],
        attributes: { scale: 0.2, window: 0, blockSize: 16 },
        reduction: 70,
      },
    ],
  },
};
