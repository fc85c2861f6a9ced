import { z } from "zod";
import { atLeast, count, text } from "./fields.ts";

/** `evaluation`. */
export const evaluationSchema = z
  .strictObject({
    every_steps: count()
      .default(100)
      .describe("Steps between evaluations on `data.validation`; there is one at the end too."),
    max_batches: count()
      .optional()
      .describe("Most micro-batches of one evaluation. Without it, all of them."),
  })
  .prefault({})
  .describe("Measuring the loss on held-out data.");

/** `checkpoint`. */
export const checkpointSchema = z
  .strictObject({
    every_steps: count()
      .optional()
      .describe("Steps between checkpoints. Without it, only at the end and on Ctrl-C."),
    keep_last: count().default(2).describe("Checkpoints to keep; older ones are deleted."),
    parallel_write: z.literal(true).default(true).describe("Every rank writes its own part; always so."),
    async: z
      .boolean()
      .default(false)
      .describe(
        "Go on training while a checkpoint is written: what is not written when weights change next is copied. States on disk are written before the run goes on.",
      ),
    load_universal: z
      .union([z.boolean(), text()])
      .default(false)
      .describe(
        "A folder that `slipstream convert` wrote from a universal checkpoint of DeepSpeed: a new run begins with its weights, Adam's moments and step. DeepSpeed's switch, true or false, says nothing here: every checkpoint loads at any topology.",
      )
      .meta({ typeText: "boolean | string" }),
  })
  .prefault({})
  .describe("Saving what a run needs to go on exactly where it was.");

/** `samples`. */
export const samplesSchema = z
  .strictObject({
    every_steps: count().default(100).describe("Steps between samples."),
    prompts: z.array(z.string()).min(1).describe("Texts to continue."),
    max_tokens: count().default(48).describe("Tokens to write for each prompt."),
    temperature: atLeast(0).default(0.8).describe("Randomness of the samples; 0 takes the likeliest token."),
  })
  .optional()
  .describe("Text that the model writes now and then, to watch it learn.");

/** `tensorboard`, as DeepSpeed has it. */
export const tensorboardSchema = z
  .strictObject({
    enabled: z.boolean().default(false).describe("Write TensorBoard event files."),
    output_path: text().optional().describe("Where to. Without it, `<output_dir>/tensorboard`."),
    job_name: text().default("slipstream").describe("Folder of this run inside `output_path`."),
  })
  .prefault({})
  .describe("Metrics for TensorBoard.");
