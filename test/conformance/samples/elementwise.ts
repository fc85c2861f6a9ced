import type { DType } from "../../../src/base/dtype.ts";
import { constant, fill, multiply } from "../../../src/graph/build.ts";
import {
  arity,
  binaryOperations,
  type ElementwiseOperation,
  unaryOperations,
} from "../../../src/graph/expression.ts";
import type { OpName } from "../../../src/graph/ops.ts";
import { integers, normal, positive, randomIntegers, type SampleTensor, spread, tensor } from "./draw.ts";
import type { OpSamples, Sample } from "./sample.ts";

type ElementwiseOp = Extract<
  OpName,
  "leaf" | "constant" | "fill" | "iota" | "random" | "elementwise" | "cast" | "map"
>;

const floats = ["f32", "bf16", "f16"] as const;

/** Operations that are defined or smooth only above 0. */
const positiveOnly: ReadonlySet<ElementwiseOperation> = new Set([
  "log",
  "sqrt",
  "rsqrt",
  "reciprocal",
  "power",
]);

function draw(operation: ElementwiseOperation, position: number, shape: readonly number[], dtype: DType) {
  const below = operation === "divide" && position === 1;
  if (below || (positiveOnly.has(operation) && (operation !== "power" || position === 0))) {
    return positive(shape, dtype);
  }
  return arity(operation) === 1 ? normal(shape, dtype) : spread(shape, dtype);
}

function unarySamples(dtype: DType): Sample<"elementwise">[] {
  return unaryOperations.flatMap((operation) => {
    const near: Sample<"elementwise"> = {
      name: operation,
      inputs: [draw(operation, 0, [3, 7, 5], dtype)],
      attributes: { operation },
    };
    // Wide enough for the tails, and at no kink.
    const far = { ...near, name: `${operation} far`, inputs: [spread([2, 19], dtype)] };
    return positiveOnly.has(operation) ? [near] : [near, far];
  });
}

function binarySamples(dtype: DType): Sample<"elementwise">[] {
  return binaryOperations.flatMap((operation) => {
    const of = (name: string, a: readonly number[], b: readonly number[]): Sample<"elementwise"> => {
      // Drawn at once, so that no two operands are equal.
      const both = spread([a.reduce((x, y) => x * y, 1) + b.reduce((x, y) => x * y, 1)], dtype).values;
      const drawn = (shape: readonly number[], position: number): SampleTensor => {
        const count = shape.reduce((x, y) => x * y, 1);
        const values = position === 0 ? both.slice(0, count) : both.slice(-count);
        const smooth = operation === "power" || (operation === "divide" && position === 1);
        if (!smooth) return tensor(shape, dtype, values);
        return operation === "power" && position === 1 ? normal(shape, dtype) : positive(shape, dtype);
      };
      return { name: `${operation} ${name}`, inputs: [drawn(a, 0), drawn(b, 1)], attributes: { operation } };
    };
    return [
      of("of one shape", [5, 11], [5, 11]),
      of("with a row", [3, 2, 7], [7]),
      of("with a column", [4, 1], [4, 6]),
      of("both stretched", [3, 1, 5], [2, 1]),
      of("with a scalar", [2, 9], []),
    ];
  });
}

const selectSamples = (dtype: DType): Sample<"elementwise">[] => [
  {
    name: "select",
    inputs: [
      tensor([3, 1, 7], dtype, [1, 0, 0, -2, 1, 0, 1, 0, 0, 1, 1, 0.5, 0, 1, 0, 1, 0, 1, 0, 1, 0]),
      normal([4, 7], dtype),
      normal([], dtype),
    ],
    attributes: { operation: "select" },
    constants: [0],
  },
];

const kinkSamples = (dtype: DType): Sample<"elementwise">[] => [
  ...(["less", "less_equal", "equal", "maximum", "minimum"] as const).map((operation) => ({
    name: `${operation} of ties`,
    inputs: [tensor([6], dtype, [1, 2, 3, -1, 0, 5]), tensor([6], dtype, [1, 3, 2, -1, 0, -5])],
    attributes: { operation },
    forwardOnly: true,
  })),
  ...(["relu", "sign", "absolute", "floor"] as const).map((operation) => ({
    name: `${operation} at kinks`,
    inputs: [tensor([7], dtype, [0, 1, -1, 2.5, -2.5, 3, -3])],
    attributes: { operation },
    forwardOnly: true,
  })),
  {
    name: "is_finite of what is not",
    inputs: [tensor([5], dtype, [1, Number.POSITIVE_INFINITY, Number.NaN, Number.NEGATIVE_INFINITY, 0])],
    attributes: { operation: "is_finite" },
    forwardOnly: true,
  },
  { name: "empty", inputs: [normal([0, 3], dtype), normal([3], dtype)], attributes: { operation: "add" } },
  {
    name: "long",
    inputs: [normal([37, 271], dtype), normal([271], dtype)],
    attributes: { operation: "multiply" },
    forwardOnly: true,
  },
];

const integerSamples = (): Sample<"elementwise">[] =>
  (["add", "subtract", "multiply", "maximum", "less", "equal"] as const).map((operation) => ({
    name: `${operation} of integers`,
    inputs: [randomIntegers([3, 5], -9, 10), randomIntegers([5], -9, 10)],
    attributes: { operation },
  }));

/** Samples of the sources and the elementwise ops. */
export const elementwiseSamples: { readonly [Op in ElementwiseOp]: OpSamples<Op> } = {
  leaf: {
    dtypes: [...floats, "i32"],
    make: (dtype) => [
      {
        name: "stored as it is",
        inputs: [dtype === "i32" ? integers([3], [1, -2, 3]) : normal([2, 3], dtype)],
        attributes: { name: "x0", kind: "input", shape: [2, 3], dtype },
        build: (inputs) => inputs,
      },
    ],
  },
  constant: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "times a leaf",
        inputs: [normal([2, 3], dtype)],
        attributes: { data: new Float32Array(3), shape: [3], dtype },
        build: ([x]) => [multiply(x!, constant([0.5, -2, 3], [3], dtype))],
      },
    ],
  },
  fill: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "times a leaf, and alone",
        inputs: [normal([2, 3], dtype)],
        attributes: { value: 0, shape: [], dtype },
        build: ([x]) => [multiply(x!, fill(0.75, [2, 3], dtype)), fill(-1.5, [5, 3], dtype)],
      },
    ],
  },
  iota: {
    dtypes: [...floats, "i32"],
    make: (dtype) =>
      [0, 1, 2].map((axis) => ({
        name: `along axis ${axis}`,
        inputs: [],
        attributes: { axis, shape: [3, 2, 5], dtype },
      })),
  },
  random: {
    dtypes: ["f32"],
    make: () => [
      {
        name: "uniform",
        inputs: [integers([2], [1234, 0])],
        attributes: { distribution: "uniform", stream: 0, shape: [7, 13] },
      },
      {
        name: "uniform of a later step and another stream",
        inputs: [integers([2], [-5, 77])],
        attributes: { distribution: "uniform", stream: 3, shape: [1031] },
      },
      {
        name: "normal",
        inputs: [integers([2], [99, 12])],
        attributes: { distribution: "normal", stream: 5, shape: [41, 5] },
      },
    ],
  },
  elementwise: {
    dtypes: [...floats, "i32"],
    make: (dtype) =>
      dtype === "i32"
        ? integerSamples()
        : [unarySamples, binarySamples, selectSamples, kinkSamples].flatMap((make) => make(dtype)),
  },
  cast: {
    dtypes: floats,
    make: (dtype) => [
      ...floats.map((to) => ({
        name: `to ${to}`,
        inputs: [normal([3, 13], dtype)],
        attributes: { dtype: to },
      })),
      {
        name: "to i32 truncates",
        inputs: [tensor([6], dtype, [1.75, -1.75, 0, 100, -0.5, 2.5])],
        attributes: { dtype: "i32" },
        forwardOnly: true,
      },
      {
        name: "from i32",
        inputs: [randomIntegers([9], -100, 100)],
        attributes: { dtype },
        forwardOnly: true,
      },
    ],
  },
  map: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "silu(x0) * x1 + 0.5",
        inputs: [normal([5, 23], dtype), normal([23], dtype)],
        attributes: {
          dtype,
          expression: {
            inputs: 2,
            instructions: [
              { operation: "silu", operands: [0] },
              { operation: "multiply", operands: [2, 1] },
              { operation: "constant", value: 0.5 },
              { operation: "add", operands: [3, 4] },
            ],
          },
        },
      },
      {
        name: "nothing but its operand",
        inputs: [normal([3, 11], dtype)],
        attributes: { dtype: "f32", expression: { inputs: 1, instructions: [] } },
      },
      {
        name: "rounded on the way",
        inputs: [normal([7, 9], dtype), positive([7, 1], dtype)],
        attributes: {
          dtype: "f32",
          expression: {
            inputs: 2,
            instructions: [
              { operation: "round_bf16", operands: [0] },
              { operation: "round_f16", operands: [1] },
              { operation: "divide", operands: [2, 3] },
              { operation: "less", operands: [0, 1] },
              { operation: "select", operands: [5, 4, 1] },
            ],
          },
        },
      },
      {
        name: "longer than a block",
        inputs: [normal([3, 4099], dtype), normal([], dtype)],
        attributes: {
          dtype,
          expression: {
            inputs: 2,
            instructions: [
              { operation: "tanh", operands: [0] },
              { operation: "multiply", operands: [2, 1] },
              { operation: "subtract", operands: [3, 0] },
            ],
          },
        },
      },
    ],
  },
};
