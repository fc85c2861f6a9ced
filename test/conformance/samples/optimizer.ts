import type { DType } from "../../../src/base/dtype.ts";
import type { OpName } from "../../../src/graph/ops.ts";
import { normal, positive, type SampleTensor, tensor } from "./draw.ts";
import type { OpSamples } from "./sample.ts";

type OptimizerOp = Extract<OpName, "adamw" | "adam" | "sgd" | "lion" | "adagrad" | "sum_of_squares">;

const length = 77;
const hyper = (...values: number[]): SampleTensor => tensor([values.length], "f32", values);
const buffer = (): SampleTensor => normal([length], "f32");
const gradient = (dtype: DType): SampleTensor => normal([length], dtype);
const adamHyper = (): SampleTensor => hyper(0.01, 0.9, 0.99, 1e-6, 0.1, 0.271, 0.0297, 0.5);
const dtypes = ["f32", "bf16"] as const;

/** Samples of the optimizer updates: the gradient in several dtypes, the rest in float32. */
export const optimizerSamples: { readonly [Op in OptimizerOp]: OpSamples<Op> } = {
  adamw: {
    dtypes,
    make: (dtype) => [
      {
        name: "a step",
        inputs: [buffer(), gradient(dtype), buffer(), positive([length], "f32"), adamHyper()],
        attributes: {},
      },
    ],
  },
  adam: {
    dtypes,
    make: (dtype) => [
      {
        name: "a step",
        inputs: [buffer(), gradient(dtype), buffer(), positive([length], "f32"), adamHyper()],
        attributes: {},
      },
    ],
  },
  sgd: {
    dtypes,
    make: (dtype) =>
      [0, 1].map((nesterov) => ({
        name: nesterov === 1 ? "Nesterov's step" : "a step",
        inputs: [buffer(), gradient(dtype), buffer(), hyper(0.1, 0.9, 0.2, 0.01, nesterov, 0.5)],
        attributes: {},
      })),
  },
  lion: {
    dtypes,
    make: (dtype) => [
      {
        name: "a step",
        inputs: [buffer(), gradient(dtype), buffer(), hyper(0.01, 0.9, 0.99, 0.1, 0.5)],
        attributes: {},
      },
    ],
  },
  adagrad: {
    dtypes,
    make: (dtype) => [
      {
        name: "a step",
        inputs: [buffer(), gradient(dtype), positive([length], "f32"), hyper(0.1, 1e-6, 0.01, 0.5)],
        attributes: {},
      },
    ],
  },
  sum_of_squares: {
    dtypes: ["f32", "bf16", "f16"],
    make: (dtype) => [
      { name: "a vector", inputs: [normal([1031], dtype)], attributes: {}, reduction: 1031 },
      { name: "a matrix", inputs: [normal([7, 13], dtype)], attributes: {}, reduction: 91 },
    ],
  },
};
