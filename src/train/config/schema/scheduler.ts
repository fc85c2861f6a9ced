import { z } from "zod";
import { atLeast, count, integer, ratio } from "./fields.ts";

const warmupKeys = {
  warmup_num_steps: integer(0).default(1000).describe("Steps of warmup; fewer than 2 count as 2."),
  warmup_type: z
    .enum(["log", "linear"])
    .default("log")
    .describe("Whether the rate rises with the logarithm of the step or in a straight line."),
};
const warmupRates = {
  warmup_min_lr: atLeast(0).default(0).describe("The learning rate at the start."),
  warmup_max_lr: atLeast(0)
    .default(0.001)
    .describe("The learning rate after warmup. It stands in place of the optimizer's `lr`."),
};
const totalSteps = count().describe("The step at which decay ends; as a rule `max_steps`.");

const cosineRatios = {
  warmup_min_ratio: ratio()
    .default(0)
    .describe("The rate at the start, as a fraction of the optimizer's `lr`."),
  cos_min_ratio: ratio()
    .default(0.0001)
    .describe("The rate at the end, as a fraction of the optimizer's `lr`."),
};

const oneCycleKeys = {
  cycle_min_lr: atLeast(0).describe("The learning rate at both ends of the cycle."),
  cycle_max_lr: atLeast(0).describe("The learning rate at the top of the cycle."),
  decay_lr_rate: atLeast(0)
    .default(0)
    .describe("After the cycle the rate is divided by 1 + this x decay intervals."),
  cycle_first_step_size: count().default(2000).describe("Steps of the rising half."),
  cycle_second_step_size: count()
    .optional()
    .describe("Steps of the falling half. Without it, as many as the first."),
  cycle_first_stair_count: integer(0).default(0).describe("Stairs in the rising half; 0 is smooth."),
  cycle_second_stair_count: integer(0)
    .optional()
    .describe("Stairs in the falling half. Without it, as many as the first."),
  decay_step_size: integer(0).default(0).describe("Steps of one decay interval; 0 is no decay."),
  cycle_momentum: z
    .boolean()
    .default(true)
    .describe("Cycle the momentum (Adam's first beta) inversely to the rate."),
  cycle_min_mom: ratio().default(0.8).describe("The momentum at the top of the cycle."),
  cycle_max_mom: ratio().default(0.9).describe("The momentum at both ends of the cycle."),
  decay_mom_rate: atLeast(0)
    .default(0)
    .describe("After the cycle the momentum is multiplied by 1 + this x decay intervals."),
};

const rangeTestKeys = {
  lr_range_test_min_lr: z.number().positive().default(1e-3).describe("The learning rate at the start."),
  lr_range_test_step_size: count()
    .default(2000)
    .describe("Steps over which the rate grows by `lr_range_test_step_rate`."),
  lr_range_test_step_rate: atLeast(0)
    .default(1)
    .describe("Growth of the rate over one step size, as a multiple of the start."),
  lr_range_test_staircase: z.boolean().default(false).describe("Grow in stairs of one step size."),
};

function schedule<Name extends string, Params extends z.ZodType>(name: Name, params: Params) {
  return z
    .strictObject({
      type: z
        .literal(name)
        .describe("The schedule; upper and lower case do not matter. `Constant` keeps the optimizer's `lr`."),
      params,
    })
    .meta({ variant: name });
}

const settings = "The schedule's own settings.";

/** `scheduler`, with DeepSpeed's type and parameter names. */
export const schedulerSchema = z
  .discriminatedUnion("type", [
    schedule("Constant", z.strictObject({}).prefault({}).describe(settings)),
    schedule(
      "WarmupLR",
      z
        .strictObject({ ...warmupRates, ...warmupKeys })
        .prefault({})
        .describe(settings),
    ),
    schedule(
      "WarmupDecayLR",
      z.strictObject({ total_num_steps: totalSteps, ...warmupRates, ...warmupKeys }).describe(settings),
    ),
    schedule(
      "WarmupCosineLR",
      z.strictObject({ total_num_steps: totalSteps, ...cosineRatios, ...warmupKeys }).describe(settings),
    ),
    schedule("OneCycle", z.strictObject(oneCycleKeys).describe(settings)),
    schedule("LRRangeTest", z.strictObject(rangeTestKeys).prefault({}).describe(settings)),
  ])
  .prefault({ type: "Constant" })
  .describe("How the learning rate changes from step to step.");
