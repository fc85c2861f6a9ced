import type { OpName } from "../../../src/graph/ops.ts";
import { integers, normal, randomIntegers, spread, tensor } from "./draw.ts";
import type { OpSamples } from "./sample.ts";

type MovementOp = Extract<
  OpName,
  | "reshape"
  | "broadcast"
  | "transpose"
  | "slice"
  | "pad_into"
  | "concatenate"
  | "gather"
  | "scatter_add"
  | "reduce"
  | "argmax"
>;

const floats = ["f32", "bf16", "f16"] as const;

/** Samples of the ops that move or reduce elements. */
export const movementSamples: { readonly [Op in MovementOp]: OpSamples<Op> } = {
  reshape: {
    dtypes: floats,
    make: (dtype) => [
      { name: "flat", inputs: [normal([3, 4, 5], dtype)], attributes: { shape: [60] } },
      { name: "split", inputs: [normal([6, 5], dtype)], attributes: { shape: [2, 3, 1, 5] } },
    ],
  },
  broadcast: {
    dtypes: floats,
    make: (dtype) => [
      { name: "a row", inputs: [normal([7], dtype)], attributes: { shape: [3, 7] } },
      { name: "inner axes", inputs: [normal([3, 1, 5, 1], dtype)], attributes: { shape: [2, 3, 4, 5, 3] } },
      { name: "a scalar", inputs: [normal([], dtype)], attributes: { shape: [4, 5] } },
    ],
  },
  transpose: {
    dtypes: floats,
    make: (dtype) => [
      { name: "a matrix", inputs: [normal([5, 9], dtype)], attributes: { permutation: [1, 0] } },
      { name: "rotated axes", inputs: [normal([3, 4, 5], dtype)], attributes: { permutation: [2, 0, 1] } },
      {
        name: "inner axes",
        inputs: [normal([2, 3, 4, 5], dtype)],
        attributes: { permutation: [0, 2, 1, 3] },
      },
      {
        name: "a matrix of odd sizes",
        inputs: [normal([67, 131], dtype)],
        attributes: { permutation: [1, 0] },
        forwardOnly: true,
      },
    ],
  },
  slice: {
    dtypes: floats,
    make: (dtype) => [
      { name: "inside", inputs: [normal([5, 7], dtype)], attributes: { starts: [1, 2], sizes: [3, 4] } },
      {
        name: "of three axes",
        inputs: [normal([4, 3, 6], dtype)],
        attributes: { starts: [0, 1, 5], sizes: [4, 2, 1] },
      },
      { name: "nothing", inputs: [normal([4, 3], dtype)], attributes: { starts: [2, 0], sizes: [0, 3] } },
    ],
  },
  pad_into: {
    dtypes: floats,
    make: (dtype) => [
      { name: "inside", inputs: [normal([3, 4], dtype)], attributes: { starts: [1, 2], shape: [5, 7] } },
      {
        name: "of three axes",
        inputs: [normal([4, 2, 1], dtype)],
        attributes: { starts: [0, 1, 5], shape: [4, 3, 6] },
      },
    ],
  },
  concatenate: {
    dtypes: floats,
    make: (dtype) => [
      { name: "rows", inputs: [normal([2, 5], dtype), normal([3, 5], dtype)], attributes: { axis: 0 } },
      {
        name: "columns",
        inputs: [normal([3, 2], dtype), normal([3, 5], dtype), normal([3, 1], dtype)],
        attributes: { axis: 1 },
      },
      {
        name: "a middle axis",
        inputs: [normal([2, 1, 3], dtype), normal([2, 4, 3], dtype)],
        attributes: { axis: 1 },
      },
    ],
  },
  gather: {
    dtypes: floats,
    make: (dtype) => [
      {
        name: "rows, some twice",
        inputs: [normal([5, 7], dtype), integers([4], [3, 0, 3, 4])],
        attributes: {},
      },
      {
        name: "by a matrix of ids",
        inputs: [normal([6, 2, 3], dtype), randomIntegers([3, 2], 0, 6)],
        attributes: {},
      },
      { name: "numbers", inputs: [normal([6], dtype), integers([3], [5, 1, 1])], attributes: {} },
    ],
  },
  scatter_add: {
    dtypes: ["f32", "bf16"],
    make: (dtype) => [
      {
        name: "rows, some twice",
        inputs: [normal([4, 7], dtype), integers([4], [3, 0, 3, 4])],
        attributes: { rows: 6 },
        reduction: 2,
      },
      {
        name: "by a matrix of ids",
        inputs: [normal([3, 2, 5], dtype), randomIntegers([3, 2], 0, 4)],
        attributes: { rows: 4 },
        reduction: 6,
      },
    ],
  },
  reduce: {
    dtypes: floats,
    make: (dtype) => [
      ...(["sum", "maximum", "minimum"] as const).flatMap((reduction) =>
        [[0], [1], [2], [0, 2], [0, 1, 2]].map((axes) => ({
          name: `${reduction} over ${axes}`,
          inputs: [spread([4, 3, 5], dtype)],
          attributes: { reduction, axes, keep: axes.length === 2 },
          reduction: 60,
        })),
      ),
      {
        name: "sum of a long row",
        inputs: [normal([3, 4099], dtype)],
        attributes: { reduction: "sum", axes: [1], keep: false },
        reduction: 4099,
        forwardOnly: true,
      },
      {
        name: "sum of a long column",
        inputs: [normal([1031, 5], dtype)],
        attributes: { reduction: "sum", axes: [0], keep: true },
        reduction: 1031,
        forwardOnly: true,
      },
      {
        name: "sum of nothing",
        inputs: [normal([3, 0], dtype)],
        attributes: { reduction: "sum", axes: [1], keep: false },
      },
    ],
  },
  argmax: {
    dtypes: floats,
    make: (dtype) => [
      { name: "distinct", inputs: [spread([5, 17], dtype)], attributes: {} },
      {
        name: "the first of equal ones",
        inputs: [tensor([3, 4], dtype, [1, 3, 3, 0, -1, -1, -1, -1, 2, 5, 1, 5])],
        attributes: {},
        forwardOnly: true,
      },
    ],
  },
};
