import { z } from "zod";
import { count, integer, off, text } from "./fields.ts";

const device = (what: string) =>
  z
    .enum(["none", "cpu", "nvme"])
    .default("none")
    .describe(
      `Where ${what} lie: with the compute (\`none\`), in host memory (\`cpu\`), or in a file on a disk. On the CPU backend host memory is where the compute is: the same as \`none\`.`,
    );

const nvmePath = () =>
  text().optional().describe("The folder on the disk, for `nvme`. Without it, `memory.nvme_path`.");

const pinMemory = () =>
  z
    .boolean()
    .default(false)
    .describe("Page-locked host memory. On the CPU backend there is nothing to pin: the same either way.");

const sizeOrAuto = (low: 0 | 1) =>
  z
    .union([z.literal("auto"), integer(low)])
    .default("auto")
    .meta({ typeText: `auto | integer >= ${low}` });

/** `zero_optimization.offload_optimizer`. */
const offloadOptimizerSchema = z
  .strictObject({
    device: device("the optimizer's states"),
    nvme_path: nvmePath(),
    buffer_count: count()
      .default(8)
      .describe(
        "Buffers of `sub_group_size` elements that may be read ahead of their update, and as many not yet written after it. AdamW moves 4 a sub-group.",
      ),
    pin_memory: pinMemory(),
    pipeline_read: z
      .boolean()
      .default(true)
      .describe("Read the next sub-group's states while this one's are updated."),
    pipeline_write: z
      .boolean()
      .default(true)
      .describe("Write the last sub-group's states while this one's are updated."),
    fast_init: z
      .boolean()
      .default(false)
      .describe("DeepSpeed's quick start from disk. States always begin as zeros made in place."),
    ratio: z
      .literal(1)
      .default(1)
      .describe(
        "The share of the states that is offloaded: all of them. With `memory.limit` what fits stays in memory.",
      ),
    interleave: z
      .enum(["auto", "always", "never"])
      .default("auto")
      .describe(
        "Update sub-groups in the last micro-batch of a step, each as soon as its gradient is whole (Deep Optimizer States, arXiv 2410.21316), which trains bit for bit the same. `auto` takes those whose transfers a cost model finds to fit beside backward, from the second step on. Where gradient clipping, fp16 or pipeline stages need the whole gradient first, `auto` updates after backward and `always` is refused. A step whose loss is not finite ends the run either way, but the weights are then no longer those before the step: go back to a checkpoint.",
      ),
  })
  .prefault({})
  .describe("Optimizer states outside of device memory (ZeRO-Offload, ZeRO-Infinity).");

/** `zero_optimization.offload_param`. */
const offloadParameterSchema = z
  .strictObject({
    device: device("parameters"),
    nvme_path: nvmePath(),
    buffer_count: count()
      .default(5)
      .describe("Buffers of `buffer_size` elements that may be read ahead of their use, with `nvme`."),
    buffer_size: sizeOrAuto(1).describe("Elements of such a buffer; `auto`: all of them take 32 MiB."),
    pin_memory: pinMemory(),
  })
  .prefault({})
  .describe("Parameters outside of device memory, at stage 3 (ZeRO-Infinity, arXiv 2104.07857).");

/** `zero_optimization`: what is partitioned over ranks, how it travels, and where it lies. */
export const zeroSchema = z
  .strictObject({
    stage: z
      .union([z.literal(0), z.literal(1), z.literal(2), z.literal(3)])
      .default(0)
      .meta({ typeText: "0 | 1 | 2 | 3" })
      .describe(
        "What is split over the data ranks: nothing (0), optimizer states (1), gradients too (2), parameters too (3). All stages train the same.",
      ),
    overlap_comm: z
      .boolean()
      .default(true)
      .describe("Communicate beside the computation: gradients during backward, parameters ahead of use."),
    reduce_scatter: z
      .literal(true)
      .default(true)
      .describe("Reduce gradients by reduce-scatter where they are partitioned; always so."),
    reduce_bucket_size: sizeOrAuto(1).describe(
      "Most gradient elements of one reduction; `auto` takes those of the largest block.",
    ),
    allgather_partitions: z
      .literal(true)
      .default(true)
      .describe("Gather updated parameters by all-gather; always so."),
    allgather_bucket_size: sizeOrAuto(1).describe(
      "Most parameter elements of one gather after an update (stages 1 and 2).",
    ),
    contiguous_gradients: z
      .literal(true)
      .default(true)
      .describe("Keep gradients in one place of memory; the planner always does."),
    sub_group_size: count()
      .default(1_000_000_000)
      .describe("Parameter elements that are updated at a time, where states are on disk; at most 1048576."),
    stage3_max_live_parameters: integer(0)
      .default(1_000_000_000)
      .describe("Most parameter elements gathered at a time at stage 3."),
    stage3_max_reuse_distance: sizeOrAuto(0).describe(
      "Parameters needed again within as many elements stay gathered.",
    ),
    stage3_prefetch_bucket_size: sizeOrAuto(0).describe(
      "Parameter elements gathered ahead of their use; 0 gathers when they are needed.",
    ),
    stage3_param_persistence_threshold: integer(0)
      .default(100_000)
      .describe("Parameters of at most as many elements are not partitioned at stage 3."),
    stage3_gather_16bit_weights_on_model_save: z
      .boolean()
      .default(false)
      .describe("DeepSpeed's switch for a whole model at the end; `model/` is always whole."),
    zero_hpz_partition_size: count()
      .default(1)
      .describe(
        "Ranks that hold a second partition of the parameters among them for backward (hpZ of ZeRO++).",
      ),
    zero_quantized_weights: z
      .boolean()
      .default(false)
      .describe("Gather parameters as int8 blocks (ZeRO++, arXiv 2306.10209). Lossy."),
    zero_quantized_gradients: z
      .boolean()
      .default(false)
      .describe("Reduce gradients by an all-to-all of int4 blocks with error feedback (ZeRO++). Lossy."),
    mics_shard_size: z
      .union([z.literal(-1), count()])
      .default(-1)
      .meta({ typeText: "-1 or integer >= 1" })
      .describe(
        "Ranks that share one copy of the states, at stage 3 (MiCS, arXiv 2205.00119); -1: all of them.",
      ),
    mics_hierarchical_params_gather: off().describe(
      "DeepSpeed's gather in two steps, across nodes and within them; not available in this version.",
    ),
    offload_optimizer: offloadOptimizerSchema,
    offload_param: offloadParameterSchema,
  })
  .prefault({})
  .describe("Partitioning of training state over ranks, and its offload (ZeRO).");
