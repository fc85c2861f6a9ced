import type { DType } from "../base/dtype.ts";
import { leaf } from "../graph/build.ts";
import { gradients } from "../graph/gradient.ts";
import { apply, buildGraph, type Graph, type GraphOutput, type Value } from "../graph/graph.ts";
import type { LanguageModel } from "../models/family.ts";
import { packedLeaves } from "../models/model.ts";
import { packedContext } from "../nn/attention.ts";
import { type ParameterTable, streamOf } from "../nn/parameters.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { linearCrossEntropy } from "../tensor/functions.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { ParameterLayout } from "./layout.ts";

/** What a training program computes with. */
export interface TrainedModel {
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
  readonly layout: ParameterLayout;
  /** The dtype of activations. */
  readonly dtype: DType;
}

/** The sum of the losses of a packed batch of up to `tokens` tokens: scalar f32. */
function sumOfLosses(model: TrainedModel, tokens: number): Tensor {
  const leaves = packedLeaves(tokens);
  const context = packedContext(leaves.offsets);
  const hidden = model.language.hidden(leaves.tokens, leaves.positions, context, model.dtype);
  return linearCrossEntropy(hidden, model.language.outputWeight, leaves.targets).sum();
}

/** The name of the leaf that holds a parameter's gradient. */
export function gradientName(parameter: string): string {
  return `gradient ${parameter}`;
}

/**
 * Forward and backward of one micro-batch. Leaves: the parameters, the batch, `weight` (f32, by which the
 * summed loss is multiplied), and a gradient for every trained parameter. Output `loss`: the plain sum.
 * @param accumulate adds to the gradients; otherwise overwrites them.
 */
export function accumulateGraph(model: TrainedModel, tokens: number, accumulate: boolean): Graph {
  const loss = sumOfLosses(model, tokens);
  const weight = leaf("weight", "input", [], "f32");
  const trained = [...model.parameters.values()].filter(({ name }) => !model.layout.frozen.has(name));
  // The weight is the gradient of the sum itself.
  const results = gradients(
    loss.value,
    trained.map((parameter) => parameter.tensor.value),
    weight,
  );
  const outputs = trained.map(({ name, shape }, index): GraphOutput => {
    const target = leaf(gradientName(name), "state", shape, "f32");
    return { name: gradientName(name), value: results[index]!, target, accumulate };
  });
  return buildGraph("train", [{ name: "loss", value: loss.value }, ...outputs]);
}

/** The summed loss of a packed batch without gradients. */
export function evaluationGraph(model: TrainedModel, tokens: number): Graph {
  return buildGraph("evaluate", [{ name: "loss", value: sumOfLosses(model, tokens).value }]);
}

/** Zeroes every gradient: leaves `gradients <group>`. */
export function clearGraph(layout: ParameterLayout): Graph {
  const outputs = layout.groups.map(({ name, length }): GraphOutput => {
    const target = leaf(`gradients ${name}`, "state", [length], "f32");
    return { name, target, value: apply("fill", [], { value: 0, shape: [length], dtype: "f32" }) };
  });
  return buildGraph("clear", outputs);
}

/** The sum of squares of each group's gradients: outputs named by group, from leaves `gradients <group>`. */
export function normGraph(layout: ParameterLayout): Graph {
  const outputs = layout.groups.map(({ name, length }): GraphOutput => {
    const flat = leaf(`gradients ${name}`, "state", [length], "f32");
    return { name, value: apply("sum_of_squares", [flat], {}) };
  });
  return buildGraph("norm", outputs);
}

/**
 * One optimizer update in place. Leaves a group: `parameters`, `gradients` and a leaf a state, each followed
 * by the group's name, and `hyper`.
 */
export function updateGraph(layout: ParameterLayout, optimizer: Optimizer): Graph {
  const outputs = layout.groups.map(({ name, length }): GraphOutput => {
    const state = (kind: string): Value<"leaf"> => leaf(`${kind} ${name}`, "state", [length], "f32");
    const parameter = state("parameters");
    const operands: Value[] = [parameter, state("gradients"), ...optimizer.states.map(state)];
    operands.push(leaf(`hyper ${name}`, "input", [optimizer.hyperparameters], "f32"));
    return { name, value: apply(optimizer.op, operands, {}), target: parameter };
  });
  return buildGraph("update", outputs);
}

/** Fills parameters with their initial values from `seed` (i32 `[2]`). */
export function initializeGraph(parameters: ParameterTable): Graph {
  const seed = leaf("seed", "input", [2], "i32");
  const outputs = [...parameters.values()].map(({ name, shape, initializer }): GraphOutput => {
    const target = leaf(name, "state", shape, "f32");
    if (initializer.kind === "constant") {
      return { name, target, value: apply("fill", [], { value: initializer.value, shape, dtype: "f32" }) };
    }
    const attributes = { distribution: "normal", stream: streamOf(name), shape } as const;
    const draws = new Tensor(apply("random", [seed], attributes));
    return { name, target, value: draws.multiply(initializer.deviation).value };
  });
  return buildGraph("initialize", outputs);
}
