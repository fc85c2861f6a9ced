import type { DType } from "../../../src/base/dtype.ts";
import type { OpAttributes, OpName } from "../../../src/graph/ops.ts";
import { referenceRules } from "../../../src/graph/rules/reference.ts";
import { integers, normal, randomIntegers, type SampleTensor, tensor } from "./draw.ts";
import type { OpSamples, Sample } from "./sample.ts";

type RowOp = Extract<
  OpName,
  | "rms_norm"
  | "rms_norm_gradient"
  | "layer_norm"
  | "layer_norm_gradient"
  | "rope"
  | "swiglu"
  | "swiglu_gradient"
  | "softmax"
  | "softmax_gradient"
  | "cross_entropy"
  | "cross_entropy_gradient"
  | "embedding"
  | "embedding_gradient"
>;

const floats = ["f32", "bf16", "f16"] as const;
const epsilon = 1e-5;

/** The forward results that gradient ops take among their operands. */
function forward<Op extends OpName>(
  op: Op,
  inputs: readonly SampleTensor[],
  attributes: OpAttributes[Op],
  results: readonly { readonly shape: readonly number[]; readonly dtype: DType }[],
): SampleTensor[] {
  const operands = inputs.map(({ shape, values }) => ({ shape, values: Float64Array.from(values) }));
  const shapes = results.map(({ shape }) => shape);
  return referenceRules[op](operands, attributes, shapes).map((values, index) => {
    const { shape, dtype } = results[index]!;
    return tensor(shape, dtype, [...values]);
  });
}

const normShapes = [[5, 7], [2, 3, 16], [9], [0, 6]] as const;
const largeNormShapes = [
  [3, 1031],
  [133, 40],
] as const;

function ropeSample(
  dtype: DType,
  name: string,
  size: number,
  rotated: number,
  attributes: OpAttributes["rope"],
): Sample<"rope"> {
  const frequencies = Array.from({ length: rotated / 2 }, (_, i) => 100 ** (-i / rotated));
  return {
    name,
    inputs: [
      normal([5, 3, size], dtype),
      integers([5], [0, 1, 2, 0, 17]),
      tensor([rotated / 2], "f32", frequencies),
    ],
    attributes,
    constants: [2],
  };
}

function crossEntropyInputs(dtype: DType, rows: number, vocabulary: number): [SampleTensor, SampleTensor] {
  return [normal([rows, vocabulary], dtype, 2), randomIntegers([rows], -1, vocabulary)];
}

/** Samples of the ops on rows. */
export const rowSamples: { readonly [Op in RowOp]: OpSamples<Op> } = {
  rms_norm: {
    dtypes: floats,
    make: (dtype) =>
      [...normShapes, ...largeNormShapes].map((shape) => ({
        name: `of [${shape}]`,
        inputs: [normal(shape, dtype), normal([shape.at(-1)!], dtype === "f16" ? "f32" : dtype)],
        attributes: { epsilon },
        reduction: shape.at(-1)!,
        forwardOnly: shape.some((size) => size > 100),
      })),
  },
  rms_norm_gradient: {
    dtypes: floats,
    make: (dtype) =>
      [...normShapes, ...largeNormShapes].map((shape) => {
        const size = shape.at(-1)!;
        const rows = shape.slice(0, -1);
        const inputs = [normal(shape, dtype), normal([size], "f32")];
        const [, inverse] = forward("rms_norm", inputs, { epsilon }, [
          { shape, dtype },
          { shape: rows, dtype: "f32" },
        ]);
        return {
          name: `of [${shape}]`,
          inputs: [normal(shape, dtype), ...inputs, inverse!],
          attributes: {},
          reduction: Math.max(size, ...rows),
        };
      }),
  },
  layer_norm: {
    dtypes: floats,
    make: (dtype) =>
      [...normShapes, ...largeNormShapes].flatMap((shape) =>
        [true, false].map((bias) => ({
          name: `of [${shape}]${bias ? " with a bias" : ""}`,
          inputs: [
            // Means far from 0: one that cancels has no digits to compare.
            tensor(
              shape,
              dtype,
              normal(shape, dtype).values.map((value) => value + 2),
            ),
            normal([shape.at(-1)!], dtype),
            ...(bias ? [normal([shape.at(-1)!], dtype)] : []),
          ],
          attributes: { epsilon, bias },
          reduction: shape.at(-1)!,
          forwardOnly: shape.some((size) => size > 100),
        })),
      ),
  },
  layer_norm_gradient: {
    dtypes: floats,
    make: (dtype) =>
      [...normShapes, ...largeNormShapes].map((shape) => {
        const size = shape.at(-1)!;
        const rows = shape.slice(0, -1);
        const inputs = [normal(shape, dtype), normal([size], "f32")];
        const [, mean, inverse] = forward("layer_norm", inputs, { epsilon, bias: false }, [
          { shape, dtype },
          { shape: rows, dtype: "f32" },
          { shape: rows, dtype: "f32" },
        ]);
        return {
          name: `of [${shape}]`,
          inputs: [normal(shape, dtype), ...inputs, mean!, inverse!],
          attributes: {},
          reduction: Math.max(size, ...rows),
        };
      }),
  },
  rope: {
    dtypes: floats,
    make: (dtype) => [
      ropeSample(dtype, "halves", 8, 8, { inverse: false, interleaved: false }),
      ropeSample(dtype, "halves, backwards", 8, 8, { inverse: true, interleaved: false }),
      ropeSample(dtype, "neighbours", 8, 8, { inverse: false, interleaved: true }),
      ropeSample(dtype, "part of a head", 10, 6, { inverse: false, interleaved: false }),
      ropeSample(dtype, "neighbours in part of a head, backwards", 7, 4, {
        inverse: true,
        interleaved: true,
      }),
      {
        ...ropeSample(dtype, "large heads", 134, 128, { inverse: false, interleaved: false }),
        forwardOnly: true,
      },
    ],
  },
  swiglu: {
    dtypes: floats,
    make: (dtype) => [
      { name: "rows", inputs: [normal([5, 7], dtype, 2), normal([5, 7], dtype)], attributes: {} },
      { name: "of no elements", inputs: [normal([0, 6], dtype), normal([0, 6], dtype)], attributes: {} },
      {
        name: "far from 0",
        inputs: [tensor([2, 4], dtype, [-9, -90, -30000, 9, 90, 30000, 0, -1]), normal([2, 4], dtype)],
        attributes: {},
        forwardOnly: true,
      },
      {
        name: "many rows",
        inputs: [normal([67, 131], dtype, 3), normal([67, 131], dtype)],
        attributes: {},
        forwardOnly: true,
      },
    ],
  },
  swiglu_gradient: {
    dtypes: floats,
    make: (dtype) =>
      (
        [
          [5, 7],
          [2, 3, 4],
          [67, 131],
        ] as const
      ).map((shape) => ({
        name: `of [${shape}]`,
        inputs: [normal(shape, dtype), normal(shape, dtype, 3), normal(shape, dtype)],
        attributes: {},
      })),
  },
  softmax: {
    dtypes: floats,
    make: (dtype) => [
      { name: "rows", inputs: [normal([5, 7], dtype, 2)], attributes: {}, reduction: 7 },
      { name: "three axes", inputs: [normal([2, 3, 4], dtype)], attributes: {}, reduction: 4 },
      {
        name: "far from 0",
        inputs: [tensor([2, 3], dtype, [10000, 9999, 9990, -30000, -30001, -30000])],
        attributes: {},
        reduction: 3,
        forwardOnly: true,
      },
      {
        name: "long rows",
        inputs: [normal([3, 1031], dtype, 3)],
        attributes: {},
        reduction: 1031,
        forwardOnly: true,
      },
    ],
  },
  softmax_gradient: {
    dtypes: floats,
    make: (dtype) =>
      (
        [
          [5, 7],
          [2, 3, 4],
          [3, 1031],
        ] as const
      ).map((shape) => ({
        name: `of [${shape}]`,
        inputs: [normal(shape, dtype), ...forward("softmax", [normal(shape, dtype)], {}, [{ shape, dtype }])],
        attributes: {},
        reduction: shape.at(-1)!,
      })),
  },
  cross_entropy: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "some targets ignored",
        inputs: [normal([5, 7], dtype), integers([5], [6, -1, 0, 3, -1])],
        attributes: {},
        reduction: 7,
      },
      {
        name: "odd sizes",
        inputs: crossEntropyInputs(dtype, 19, 1031),
        attributes: {},
        reduction: 1031,
        forwardOnly: true,
      },
    ],
  },
  cross_entropy_gradient: {
    dtypes: floats,
    make: (dtype) =>
      (
        [
          [5, 7],
          [19, 1031],
        ] as const
      ).map(([rows, vocabulary]) => {
        const inputs = crossEntropyInputs(dtype, rows, vocabulary);
        const perRow = { shape: [rows], dtype: "f32" } as const;
        const [, logsumexp] = forward("cross_entropy", inputs, {}, [perRow, perRow]);
        return {
          name: `of [${[rows, vocabulary]}]`,
          inputs: [normal([rows], "f32"), ...inputs, logsumexp!],
          attributes: {},
          reduction: vocabulary,
        };
      }),
  },
  embedding: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "rows, some twice",
        inputs: [normal([6, 5], dtype), integers([4], [3, 0, 3, 5])],
        attributes: { dtype },
      },
      {
        name: "by a matrix of ids",
        inputs: [normal([6, 3], dtype), randomIntegers([2, 3], 0, 6)],
        attributes: { dtype: "f32" },
      },
      {
        name: "from float32",
        inputs: [normal([11, 67], "f32"), randomIntegers([29], 0, 11)],
        attributes: { dtype },
        forwardOnly: true,
      },
    ],
  },
  embedding_gradient: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "rows, some twice",
        inputs: [normal([4, 5], dtype), integers([4], [3, 0, 3, 5])],
        attributes: { vocabulary: 6 },
        reduction: 2,
      },
      {
        name: "many tokens",
        inputs: [normal([2, 150, 33], dtype), randomIntegers([2, 150], 0, 17)],
        attributes: { vocabulary: 17 },
        reduction: 300,
        forwardOnly: true,
      },
    ],
  },
};
