import { z } from "zod";
import { atLeast, decayFactor, text } from "./fields.ts";

/** Parameters that weight decay leaves alone unless the config says otherwise: norms and biases. */
export const defaultNoDecay = ["*.bias", "*norm*", "*ln_*"];

const noDecay = z
  .array(text())
  .default(defaultNoDecay)
  .describe("Names of parameters without weight decay; `*` stands for anything. Default: norms and biases.");

const weightDecay = atLeast(0).default(0);
const betas = (first: number, second: number) =>
  z
    .tuple([decayFactor(), decayFactor()])
    .default([first, second])
    .describe("Decay of the running averages of the gradient and of its square.");
const epsilon = (value: number) => z.number().positive().default(value).describe("Added to the denominator.");
const learningRate = (value: number) =>
  atLeast(0).default(value).describe("The learning rate where no scheduler brings its own.");

const adamKeys = { lr: learningRate(1e-3), betas: betas(0.9, 0.999), eps: epsilon(1e-8) };

function optimizer<Name extends string, Params extends z.ZodType>(name: Name, params: Params) {
  return z
    .strictObject({
      type: z.literal(name).describe("The optimizer; upper and lower case do not matter."),
      params: params.describe("The optimizer's own settings."),
    })
    .meta({ variant: name });
}

/** `optimizer`, with DeepSpeed's type names and PyTorch's parameter names. */
export const optimizerSchema = z
  .discriminatedUnion("type", [
    optimizer(
      "AdamW",
      z
        .strictObject({
          ...adamKeys,
          weight_decay: weightDecay.describe("Decoupled weight decay (arXiv 1711.05101)."),
          no_decay: noDecay,
        })
        .prefault({}),
    ),
    optimizer(
      "Adam",
      z
        .strictObject({
          ...adamKeys,
          weight_decay: weightDecay.describe("Weight decay; decoupled unless `adam_w_mode` is false."),
          adam_w_mode: z
            .boolean()
            .default(true)
            .describe(
              "Decouple the weight decay as AdamW does, which is what DeepSpeed's Adam does unless told otherwise.",
            ),
          no_decay: noDecay,
        })
        .prefault({}),
    ),
    optimizer(
      "SGD",
      z
        .strictObject({
          lr: learningRate(1e-3),
          momentum: decayFactor().default(0).describe("Momentum."),
          nesterov: z.boolean().default(false).describe("Look ahead by one step of momentum."),
          weight_decay: weightDecay.describe("L2 penalty, added to the gradient."),
          no_decay: noDecay,
        })
        .prefault({}),
    ),
    optimizer(
      "Lion",
      z
        .strictObject({
          lr: learningRate(1e-4),
          betas: betas(0.9, 0.99),
          weight_decay: weightDecay.describe("Decoupled weight decay."),
          no_decay: noDecay,
        })
        .prefault({}),
    ),
    optimizer(
      "Adagrad",
      z
        .strictObject({
          lr: learningRate(1e-2),
          eps: epsilon(1e-10),
          weight_decay: weightDecay.describe("L2 penalty, added to the gradient."),
          no_decay: noDecay,
        })
        .prefault({}),
    ),
  ])
  .prefault({ type: "AdamW" })
  .describe("How parameters follow their gradients.");
