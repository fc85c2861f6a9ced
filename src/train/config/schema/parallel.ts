import { z } from "zod";
import { meshAxes } from "../../../parallel/mesh.ts";
import { atLeast, byteSize, count, text } from "./fields.ts";

/** `parallel`: how many ranks each axis of the mesh has. */
export const parallelSchema = z
  .strictObject({
    auto: z
      .boolean()
      .default(false)
      .describe("Let the planner choose the axes that are left out. `parallel: auto` is short for it."),
    data: count().optional().describe("Ranks that split the batch. Without it, the ranks that remain."),
    tensor: count().optional().describe("Ranks that split every layer's matrices. Without it, 1."),
    pipeline: count().optional().describe("Stages that split the layers. Without it, 1."),
    sequence: count().optional().describe("Ranks that split every sequence. Without it, 1."),
    expert: count().optional().describe("Ranks that split the experts. Without it, 1."),
  })
  .prefault({})
  .describe("How the ranks share the work: the axes of the mesh multiply to the number of ranks.");

/** `tensor_parallel`. */
export const tensorParallelSchema = z
  .strictObject({
    autotp_size: count().optional().describe("DeepSpeed's name of `parallel.tensor`."),
    sequence_sharded_norms: z
      .boolean()
      .default(true)
      .describe("Split what lies between the matrices, such as norms, by tokens (arXiv 2205.05198)."),
  })
  .prefault({})
  .describe("Tensor parallelism (`parallel.tensor`).");

/** `pipeline`. */
export const pipelineSchema = z
  .strictObject({
    schedule: z
      .enum(["gpipe", "1f1b", "interleaved", "zero_bubble"])
      .default("1f1b")
      .describe(
        "The order of micro-batches: all forward first (`gpipe`, arXiv 1811.06965), one forward one backward (`1f1b`), several chunks a stage (`interleaved`, arXiv 2104.04473), or weight gradients in the gaps (`zero_bubble`, arXiv 2401.10241).",
      ),
    two_stage_backward: z
      .boolean()
      .default(false)
      .describe(
        "Compute gradients of inputs first, those of weights when there is time (2BP, arXiv 2405.18047).",
      ),
    chunks: count().optional().describe("Chunks of layers a stage, for `interleaved`. Without it, 2."),
    partition: z
      .enum(["best", "parameters", "uniform"])
      .default("best")
      .describe("Where layers are cut: by the time that they take, by parameters, or by their number."),
  })
  .prefault({})
  .describe("Pipeline parallelism (`parallel.pipeline`).");

/** `sequence_parallel`. */
export const sequenceParallelSchema = z
  .strictObject({
    mode: z
      .enum(["ulysses", "ring", "striped", "usp", "loongtrain", "burst", "dsp"])
      .default("ulysses")
      .describe(
        "How attention meets the other ranks' tokens: all-to-all on heads (`ulysses`, arXiv 2309.14509), keys and values around a ring (`ring`, arXiv 2310.01889), balanced for causal masks (`striped`, arXiv 2311.09431), both in two dimensions (`usp`, arXiv 2405.07719; `loongtrain`, arXiv 2406.18485), rings of rings (`burst`, arXiv 2403.09347), or switching the dimension that is split (`dsp`, arXiv 2403.10266).",
      ),
    ulysses_degree: count()
      .optional()
      .describe("Ranks of `parallel.sequence` that split heads, for `usp` and `loongtrain`."),
    ring_degree: count()
      .optional()
      .describe(
        "Ranks of `parallel.sequence` in a ring, for `usp` and `loongtrain`. What remains, without it.",
      ),
    placement: z
      .enum(["head_first", "context_first"])
      .default("head_first")
      .describe("Which of the two dimensions has neighbouring ranks."),
    inner_ring: count()
      .optional()
      .describe("Ranks of an inner ring, for `loongtrain` and `burst`. Without it, one ring of all."),
  })
  .prefault({})
  .describe("Sequence parallelism (`parallel.sequence`).");

const link = z
  .strictObject({
    bandwidth: byteSize().describe("Bytes a second that a rank sends, such as 1GB."),
    latency: atLeast(0).default(0).describe("Seconds until a message arrives."),
  })
  .optional();

/** `comm`: how ranks talk. */
export const commSchema = z
  .strictObject({
    timeout_seconds: atLeast(0)
      .default(300)
      .describe("A rank that does not join the others within this time ends all of them; 0 waits for ever."),
    links: z
      .strictObject(
        Object.fromEntries(
          meshAxes.map((axis) => [axis, link.describe(`Between ranks that differ in \`${axis}\` alone.`)]),
        ) as Record<(typeof meshAxes)[number], typeof link>,
      )
      .prefault({})
      .describe("Links that ranks of one process pretend to have, to measure slower networks."),
  })
  .prefault({})
  .describe("Communication between ranks.");

/** `memory`: what the tiers may hold. */
export const memorySchema = z
  .strictObject({
    limit: byteSize()
      .optional()
      .describe(
        "Most memory of the whole process. What does not fit goes to disk; a limit too small is refused.",
      ),
    nvme_path: text().optional().describe("The folder for what goes to disk."),
  })
  .prefault({})
  .describe("Limits of memory.");

/** `aio`: how files of offloaded states are read and written. */
export const aioSchema = z
  .strictObject({
    block_size: byteSize()
      .default(1_048_576)
      .describe("Bytes of one read or write: a multiple of 4096, which is what disks move."),
    queue_depth: count().default(8).describe("Reads of each thread under way at a time, and as many writes."),
    thread_count: count().default(1).describe("Threads that share each read, and as many for writes."),
  })
  .prefault({})
  .describe("Reading and writing offloaded states.");

/** `elasticity`. */
export const elasticitySchema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe("Whether a run that lost a rank goes on with fewer (`--max-restarts`), the batch size held."),
    min_gpus: count().default(1).describe("Fewest ranks to go on with."),
    max_gpus: count().optional().describe("Most ranks to start with."),
    micro_batch_sizes: z
      .array(count())
      .min(1)
      .optional()
      .describe("Micro-batch sizes to choose from: the largest that divides each rank's share of the batch."),
  })
  .prefault({})
  .describe("Going on with another number of ranks. The batch size stays; accumulation makes up for ranks.");
