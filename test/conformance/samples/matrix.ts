import type { DType } from "../../../src/base/dtype.ts";
import { apply } from "../../../src/graph/graph.ts";
import { activations, type OpAttributes, type OpName } from "../../../src/graph/ops.ts";
import { integers, normal, positive, randomIntegers, type SampleTensor } from "./draw.ts";
import type { OpSamples, Sample } from "./sample.ts";

type MatrixOp = Extract<
  OpName,
  "matmul" | "pack_matrix" | "matmul_packed" | "linear_cross_entropy" | "linear_cross_entropy_gradient"
>;

const plain = {
  transposeA: false,
  transposeB: false,
  activation: "none",
  bias: false,
  residual: false,
} as const;

function matmulSample(
  name: string,
  inputs: readonly SampleTensor[],
  changes: Partial<OpAttributes["matmul"]>,
  more: Partial<Sample<"matmul">> = {},
): Sample<"matmul"> {
  const attributes = { ...plain, dtype: inputs[0]!.dtype, ...changes };
  const reduction = inputs[0]!.shape.at(attributes.transposeA ? -2 : -1)!;
  return { name, inputs, attributes, reduction, ...more };
}

/** All four transposes of batch [..], M, N, K; `shared`: b has no batch axes. */
function transposes(
  name: string,
  batch: readonly number[],
  [rows, columns, inner]: readonly [number, number, number],
  dtype: DType,
  shared: boolean,
  more: Partial<Sample<"matmul">> = {},
): Sample<"matmul">[] {
  return [false, true].flatMap((transposeA) =>
    [false, true].map((transposeB) => {
      const a = normal([...batch, ...(transposeA ? [inner, rows] : [rows, inner])], dtype);
      const bShape = transposeB ? [columns, inner] : [inner, columns];
      const b = normal(shared ? bShape : [...batch, ...bShape], dtype);
      const text = `${name}${transposeA ? ", a transposed" : ""}${transposeB ? ", b transposed" : ""}`;
      return matmulSample(text, [a, b], { transposeA, transposeB }, more);
    }),
  );
}

const large = { forwardOnly: true };

function matmulSamples(dtype: DType): Sample<"matmul">[] {
  const epilogue = (shape: readonly number[]): SampleTensor[] => [
    normal([3, 4], dtype),
    normal([4, 5], dtype),
    normal([5], dtype),
    normal(shape, dtype),
  ];
  return [
    ...transposes("small", [], [3, 5, 7], dtype, true),
    ...transposes("batched", [2, 3], [4, 3, 2], dtype, false),
    ...transposes("b shared by batches", [2, 2], [3, 4, 5], dtype, true),
    ...transposes("odd sizes", [], [67, 131, 77], dtype, true, large),
    ...transposes("batches of odd sizes", [3], [35, 17, 33], dtype, false, large),
    ...transposes("one row", [], [1, 97, 129], dtype, true, large),
    matmulSample(
      "b a parameter",
      [normal([19, 45], dtype), normal([45, 70], dtype)],
      {},
      { ...large, parameters: [1] },
    ),
    matmulSample(
      "b a transposed parameter",
      [normal([2, 9, 45], dtype), normal([70, 45], dtype)],
      { transposeB: true },
      { ...large, parameters: [1] },
    ),
    matmulSample("no rows", [normal([0, 4], dtype), normal([4, 5], dtype)], {}),
    matmulSample("nothing to sum", [normal([3, 0], dtype), normal([0, 5], dtype)], {}, large),
    ...activations.map((activation) =>
      matmulSample(
        `${activation}(a b + bias) + residual`,
        // Positive operands stay away from the kink of relu.
        activation === "relu"
          ? [positive([3, 4], dtype), positive([4, 5], dtype), positive([5], dtype), normal([3, 5], dtype)]
          : epilogue([3, 5]),
        { activation, bias: true, residual: true },
      ),
    ),
    matmulSample("a bias", epilogue([3, 5]).slice(0, 3), { bias: true }),
    matmulSample(
      "a residual in batches",
      [normal([2, 3, 4], dtype), normal([4, 5], dtype), normal([2, 3, 5], dtype)],
      {
        residual: true,
      },
    ),
    matmulSample(
      "a float32 result",
      [normal([5, 40], dtype), normal([40, 9], dtype)],
      { dtype: "f32" },
      large,
    ),
    matmulSample("a float32 b", [normal([5, 40], dtype), normal([40, 9], "f32")], {}, large),
  ];
}

/** Packs the second operand, then multiplies. */
function packedSample<Op extends "pack_matrix" | "matmul_packed">(
  name: string,
  attributes: OpAttributes[Op],
  dtype: DType,
  transposeB: boolean,
): Sample<Op> {
  const elements = dtype === "bf16" ? "bf16" : "f32";
  const [rows, inner, columns] = [9, 45, 70];
  return {
    name,
    inputs: [
      normal([2, rows, inner], dtype),
      normal(transposeB ? [columns, inner] : [inner, columns], dtype),
      normal([columns], dtype),
      normal([2, rows, columns], dtype),
    ],
    attributes,
    reduction: inner,
    parameters: [1],
    build: ([a, b, ...extra]) => {
      const packed = apply("pack_matrix", [b!], { transposeB, elements });
      return [
        apply("matmul_packed", [a!, packed, ...extra], {
          columns,
          elements,
          activation: "silu",
          bias: true,
          residual: true,
          dtype,
        }),
      ];
    },
  };
}

const lossInputs = (dtype: DType, tokens: number, size: number, vocabulary: number): SampleTensor[] => [
  normal([tokens, size], dtype),
  normal([vocabulary, size], dtype, 0.7),
];

/** Samples of the matrix products. */
export const matrixSamples: { readonly [Op in MatrixOp]: OpSamples<Op> } = {
  matmul: { dtypes: ["f32", "bf16", "f16"], make: matmulSamples },
  pack_matrix: {
    dtypes: ["f32", "bf16"],
    make: (dtype) => [
      packedSample(
        "as it is",
        { transposeB: false, elements: dtype === "bf16" ? "bf16" : "f32" },
        dtype,
        false,
      ),
    ],
  },
  matmul_packed: {
    dtypes: ["f32", "bf16"],
    make: (dtype) => {
      const elements = dtype === "bf16" ? "bf16" : "f32";
      const attributes = { ...plain, columns: 70, elements, dtype } as const;
      return [packedSample("by a transposed b", attributes, dtype, true)];
    },
  },
  linear_cross_entropy: {
    dtypes: ["f32", "bf16"],
    make: (dtype) => [
      {
        name: "some targets ignored",
        inputs: [...lossInputs(dtype, 5, 4, 7), integers([5], [6, -1, 0, 3, -1])],
        attributes: {},
        reduction: 7,
      },
      {
        name: "odd sizes",
        inputs: [...lossInputs(dtype, 37, 45, 331), randomIntegers([37], -1, 331)],
        attributes: {},
        reduction: 331,
        forwardOnly: true,
      },
    ],
  },
  linear_cross_entropy_gradient: {
    dtypes: ["f32", "bf16"],
    make: (dtype) => [
      {
        name: "some targets ignored",
        inputs: [normal([5], "f32"), ...lossInputs(dtype, 5, 4, 7), integers([5], [6, -1, 0, 3, -1])],
        attributes: {},
        reduction: 7,
      },
      {
        name: "odd sizes",
        inputs: [normal([37], "f32"), ...lossInputs(dtype, 37, 45, 331), randomIntegers([37], -1, 331)],
        attributes: {},
        reduction: 331,
      },
    ],
  },
};
