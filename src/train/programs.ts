import type { DType } from "../base/dtype.ts";
import { leaf, reshape } from "../graph/build.ts";
import { gradients } from "../graph/gradient.ts";
import { apply, buildGraph, type Graph, type GraphOutput, type Value } from "../graph/graph.ts";
import type { LanguageModel } from "../models/family.ts";
import { packedLeaves } from "../models/model.ts";
import { packedContext } from "../nn/attention.ts";
import { type ParameterTable, streamOf } from "../nn/parameters.ts";
import type { Optimizer } from "../optim/optimizer.ts";
import { keptElements } from "../parallel/zero/partition.ts";
import { linearCrossEntropy } from "../tensor/functions.ts";
import { Tensor } from "../tensor/tensor.ts";
import type { DecayGroup, ParameterLayout, PlacedParameter, Sweep } from "./layout.ts";

/** What a training program computes with. */
export interface TrainedModel {
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
  readonly layout: Pick<ParameterLayout, "frozen">;
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

/** Zeroes stretches of the gradients: leaves `gradients <name>`. */
export function clearGraph(stretches: readonly SquaredStretch[]): Graph {
  const outputs = stretches.map(({ name, length }): GraphOutput => {
    const target = leaf(`gradients ${name}`, "state", [length], "f32");
    const value = apply("fill", [], { value: 0, shape: [length], dtype: "f32" });
    return { name: `gradients ${name}`, target, value };
  });
  return buildGraph("clear", outputs);
}

/** Rounds what this rank keeps of every parameter to bf16: from leaves `master <name>` into `copy of <name>`. */
export function copyGraph(layout: ParameterLayout): Graph {
  const outputs = [...layout.parameters].map(([name, placed]): GraphOutput => {
    const shape = [keptElements(placed, placed.parameter)];
    const value = apply("cast", [leaf(`master ${name}`, "state", shape, "f32")], { dtype: "bf16" });
    return { name, value, target: leaf(`copy of ${name}`, "state", shape, "bf16") };
  });
  return buildGraph("copy", outputs);
}

/** A stretch of the gradients of which the squares are summed. */
export interface SquaredStretch {
  readonly name: string;
  readonly gradientStart: number;
  readonly length: number;
}

/** The sum of squares of each stretch: outputs `squares <name>`, from leaves `gradients <name>`. */
export function normGraph(stretches: readonly SquaredStretch[]): Graph {
  const outputs = stretches.map(({ name, length }): GraphOutput => {
    const flat = leaf(`gradients ${name}`, "state", [length], "f32");
    return { name: `squares ${name}`, value: apply("sum_of_squares", [flat], {}) };
  });
  return buildGraph("norm", outputs);
}

/**
 * One optimizer update in place. Leaves a sweep: `parameters`, `gradients` and a leaf a state, each followed by the
 * sweep's name; `hyper <decay group>`; and `whole <parameter>` for a parameter whose parts are gathered afterwards.
 * @param bucket elements that one collective gathers
 * @param halves rounds what was updated to bf16 as well, into `copy <sweep>`
 */
export function updateGraph(
  layout: Pick<ParameterLayout, "sweeps">,
  optimizer: Optimizer,
  bucket = Infinity,
  halves = false,
): Graph {
  const updates = new SweepUpdates(optimizer, bucket, halves);
  const outputs = layout.sweeps.flatMap((sweep) => updates.update(sweep));
  return buildGraph("update", [...outputs, ...updates.publish()]);
}

/** Records the updates of sweeps one after another: the leaves of `updateGraph`. */
export class SweepUpdates {
  readonly #optimizer: Optimizer;
  readonly #bucket: number;
  readonly #halves: boolean;
  readonly #hyper = new Map<DecayGroup, Value>();
  #open: { parameter: PlacedParameter; part: Value }[] = [];

  /** See `updateGraph`. */
  constructor(optimizer: Optimizer, bucket: number, halves: boolean) {
    this.#optimizer = optimizer;
    this.#bucket = bucket;
    this.#halves = halves;
  }

  /** Updates a sweep, and gathers the parts of parameters as soon as a bucket of them is there. */
  update({ name, length, decayGroup, publishes }: Sweep): GraphOutput[] {
    const { op, states } = this.#optimizer;
    const state = (kind: string): Value<"leaf"> => leaf(`${kind} ${name}`, "state", [length], "f32");
    const parameter = state("parameters");
    const operands = [parameter, state("gradients"), ...states.map(state), this.#hyperOf(decayGroup)];
    const value = apply(op, operands, {});
    const outputs: GraphOutput[] = [{ name: `updated ${name}`, value, target: parameter }];
    if (this.#halves) {
      const copy = apply("cast", [value], { dtype: "bf16" });
      const target = leaf(`copy ${name}`, "state", [length], "bf16");
      outputs.push({ name: `copy ${name}`, value: copy, target });
    }
    if (publishes === undefined) return outputs;
    if (this.#open.length > 0 && this.#open[0]!.parameter.group.axes !== publishes.group.axes)
      outputs.push(...this.publish());
    // What is gathered may not lie in the memory that it is gathered into.
    const part = apply("slice", [value], { starts: [0], sizes: [length] });
    this.#open.push({ parameter: publishes, part });
    const gathered = this.#open.reduce((sum, { parameter: { padded } }) => sum + padded, 0);
    if (gathered >= this.#bucket) outputs.push(...this.publish());
    return outputs;
  }

  /** Gathers the parts of what was updated since the last time. */
  publish(): GraphOutput[] {
    const [first] = this.#open;
    if (first === undefined) return [];
    const { group } = first.parameter;
    const parts = this.#open.map(({ part }) => part);
    const { node } = apply("all_gather", parts, { group, dimension: 0 });
    const outputs = this.#open.map(({ parameter: { local, padded } }, index): GraphOutput => {
      const target = leaf(`whole ${local.name}`, "state", [padded], "f32");
      return { name: `whole ${local.name}`, value: { node, index }, target };
    });
    this.#open = [];
    return outputs;
  }

  #hyperOf(group: DecayGroup): Value {
    let hyper = this.#hyper.get(group);
    if (hyper === undefined) {
      hyper = leaf(`hyper ${group}`, "input", [this.#optimizer.hyperparameters], "f32");
      this.#hyper.set(group, hyper);
    }
    return hyper;
  }
}

/**
 * Fills what this rank keeps of every parameter with initial values from `seed` (i32 `[2]`): those that the whole
 * parameter would have.
 */
export function initializeGraph(parameters: ParameterTable, layout: ParameterLayout): Graph {
  const seed = leaf("seed", "input", [2], "i32");
  const outputs = [...layout.parameters.values()].map((placed): GraphOutput => {
    const { name, box } = placed.local;
    const { shape, initializer } = parameters.get(name)!;
    const target = leaf(name, "state", leafShape(placed), "f32");
    if (initializer.kind === "constant") {
      const value = apply("fill", [], { value: initializer.value, shape: leafShape(placed), dtype: "f32" });
      return { name, target, value };
    }
    const attributes = { distribution: "normal", stream: streamOf(name), shape } as const;
    const draws = new Tensor(apply("random", [seed], attributes)).multiply(initializer.deviation).value;
    const isWhole = box.sizes.every((size, axis) => size === shape[axis]);
    const local = isWhole ? draws : apply("slice", [draws], box);
    return { name, target, value: placed.parameter === "part" ? partOf(local, placed) : local };
  });
  return buildGraph("initialize", outputs);
}

/** The shape of a parameter's leaf: that of the rank's box, or of the part that it keeps. */
export function leafShape({ parameter, part, local }: PlacedParameter): readonly number[] {
  return parameter === "part" ? [part] : local.box.sizes;
}

/** The rank's own part of a local parameter. */
function partOf(value: Value, { elements, padded, part, group }: PlacedParameter): Value {
  const flat = reshape(value, [elements]);
  const whole = padded === elements ? flat : apply("pad_into", [flat], { starts: [0], shape: [padded] });
  return apply("slice", [whole], { starts: [group.rank * part], sizes: [part] });
}
