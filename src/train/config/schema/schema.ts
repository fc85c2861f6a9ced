import { z } from "zod";
import { dataSchema } from "./data.ts";
import { atLeast, count, integer, text } from "./fields.ts";
import { modelSchema, tokenizerSchema } from "./model.ts";
import { optimizerSchema } from "./optimizer.ts";
import {
  aioSchema,
  commSchema,
  elasticitySchema,
  memorySchema,
  parallelSchema,
  pipelineSchema,
  sequenceParallelSchema,
  tensorParallelSchema,
} from "./parallel.ts";
import { activationCheckpointingSchema, bf16Schema, fp16Schema } from "./precision.ts";
import { checkpointSchema, evaluationSchema, samplesSchema, tensorboardSchema } from "./run.ts";
import { schedulerSchema } from "./scheduler.ts";
import { zeroSchema } from "./zero.ts";

/**
 * The whole training config: DeepSpeed's keys with their names and meaning, Slipstream's sections beside
 * them. Every level refuses keys that it does not know.
 */
export const trainConfigSchema = z.strictObject({
  model: modelSchema,
  tokenizer: tokenizerSchema,
  data: dataSchema,
  output_dir: text().describe("The folder that receives metrics, checkpoints and the trained model."),
  seed: integer(0).default(0).describe("Seed of every random choice; one seed, one result."),
  max_steps: count().optional().describe("Optimizer updates after which training ends."),
  epochs: z
    .number()
    .positive()
    .optional()
    .describe("Passes over the data after which training ends. Without it and without `max_steps`, 1."),
  stop_at_loss: z
    .number()
    .optional()
    .describe(
      "End, and report the time, once the evaluation loss (the training loss without `data.validation`) is this low.",
    ),

  train_batch_size: count()
    .optional()
    .describe("Rows of one optimizer update: micro-batch x accumulation steps x data ranks."),
  train_micro_batch_size_per_gpu: count().optional().describe("Rows that one rank computes at a time."),
  gradient_accumulation_steps: count()
    .optional()
    .describe("Micro-batches whose gradients are summed before an update."),
  gradient_clipping: atLeast(0).default(0).describe("Largest norm of the whole gradient; 0 does not clip."),
  optimizer: optimizerSchema,
  scheduler: schedulerSchema,
  bf16: bf16Schema,
  fp16: fp16Schema,
  activation_checkpointing: activationCheckpointingSchema,
  zero_optimization: zeroSchema,
  frozen_parameters: z
    .array(text())
    .default([])
    .describe("Names of parameters that stay as they are; `*` stands for anything."),

  parallel: parallelSchema,
  tensor_parallel: tensorParallelSchema,
  pipeline: pipelineSchema,
  sequence_parallel: sequenceParallelSchema,
  memory: memorySchema,
  aio: aioSchema,
  comm: commSchema,
  elasticity: elasticitySchema,

  evaluation: evaluationSchema,
  checkpoint: checkpointSchema,
  samples: samplesSchema,
  steps_per_print: count()
    .default(10)
    .describe("Steps between progress lines where there is no terminal to redraw."),
  wall_clock_breakdown: z.boolean().default(false).describe("Print where the time of a step goes."),
  tensorboard: tensorboardSchema,
});

/** A training config after validation, with every default filled in. */
export type TrainConfig = z.output<typeof trainConfigSchema>;
/** `optimizer` of a config, one member for each type. */
export type OptimizerSection = TrainConfig["optimizer"];
