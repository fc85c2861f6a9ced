import { z } from "zod";
import { atLeast, byteSize, count, integer, off } from "./fields.ts";

/** `bf16`. */
export const bf16Schema = z
  .strictObject({
    enabled: z.boolean().default(false).describe("Compute in bfloat16 and keep float32 master weights."),
  })
  .prefault({})
  .describe("Training in bfloat16. With neither `bf16` nor `fp16`, everything is float32.");

/** `fp16`, with DeepSpeed's loss scaling. */
export const fp16Schema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe("Compute in half precision, keep float32 master weights and scale the loss."),
    auto_cast: off().describe("DeepSpeed's casting of inputs; not available in this version."),
    loss_scale: atLeast(0).default(0).describe("A fixed loss scale; 0 adjusts it as the run goes."),
    initial_scale_power: integer(0)
      .max(32)
      .default(16)
      .describe("The first dynamic loss scale, as a power of 2."),
    loss_scale_window: count()
      .default(1000)
      .describe("Steps without overflow after which the scale doubles."),
    hysteresis: count().default(2).describe("Overflows after which the scale halves."),
    consecutive_hysteresis: z
      .boolean()
      .default(false)
      .describe("Count overflows anew after every step that did not overflow, instead of at every doubling."),
    min_loss_scale: z
      .number()
      .positive()
      .default(1)
      .describe("The scale never falls below this; overflowing at it ends the run."),
  })
  .prefault({})
  .describe("Training in half precision with loss scaling.");

/** `activation_checkpointing`: what is recomputed in the backward pass instead of being kept. */
export const activationCheckpointingSchema = z
  .strictObject({
    mode: z
      .enum(["none", "every_block", "keep_attention", "every_k", "sqrt", "budget"])
      .default("none")
      .describe(
        "Which activations are kept: all (`none`), the input of every block, with the results of its attention (arXiv 2406.18485), of every k-th block, of about the square root of the blocks (arXiv 1604.06174), or as many as fit `memory_budget` with the least extra compute.",
      ),
    every: count().optional().describe("Blocks between kept activations, for mode `every_k`."),
    memory_budget: byteSize().optional().describe("Memory for activations, for mode `budget`."),
    partition_activations: z
      .boolean()
      .default(false)
      .describe(
        "DeepSpeed's switch to split what is kept over the tensor ranks. `tensor_parallel.sequence_sharded_norms` does so, and this needs it.",
      ),
    cpu_checkpointing: z
      .boolean()
      .default(false)
      .describe(
        "Move what is kept for backward out of memory, to `memory.nvme_path`: on the CPU backend it is in host memory already.",
      ),
    contiguous_memory_optimization: off().describe(
      "The planner already places every buffer; there is nothing to switch on.",
    ),
    synchronize_checkpoint_boundary: off().describe(
      "A debugging aid of DeepSpeed; not available in this version.",
    ),
    profile: off().describe("DeepSpeed's own timing of recomputation; use `--trace`."),
  })
  .prefault({})
  .describe("Recomputing activations to save memory. Results are the same to the last bit.");
