import { formatBytes } from "../../base/bytes.ts";
import { ConfigError } from "../../base/errors.ts";
import { MemoryLimitError } from "../../compiler/plan/tiers.ts";
import type { TrainConfig } from "../config/index.ts";
import type { OffloadSettings } from "./settings.ts";

/** What a placement depends on beside the config. */
export interface PlacementFacts {
  /** Ranks that share the process. */
  readonly ranks: number;
  /** Bytes that the process holds before the engine is built. */
  readonly residentBytes: number;
  /** Whether forward and backward may read parameters in bf16. */
  readonly computesInHalf: boolean;
}

/** Elements of a sub-group at most: its states, those read ahead and those not yet written take some 60 MiB. */
const largestSubGroup = 2 ** 20;
/** Bytes of parameters and gradients under way, where the config does not say. */
const largestWindow = 2 ** 25;
/** What a process takes beside what is planned: JavaScript's heap, work space of kernels, batches. */
const unplannedBytes = 160 * 2 ** 20;

/**
 * The places to try for the states of one rank, from most in memory to least; the first one that fits is taken.
 * What moves most bytes a step stays longest: activations always, then parameters, which every micro-batch reads
 * twice, then gradients, then the optimizer's states, which every update reads and writes once. Undefined stands for
 * everything in memory.
 * @throws ConfigError (`no_disk_path`) where a limit may send states to disk and no folder is named.
 */
export function placementsOf(
  config: TrainConfig,
  facts: PlacementFacts,
): readonly (OffloadSettings | undefined)[] {
  const { offload_optimizer: optimizer, offload_param: parameter, sub_group_size } = config.zero_optimization;
  const { aio } = config;
  const { limit, nvme_path } = config.memory;
  const wanted = { optimizer: optimizer.device === "nvme", parameters: parameter.device === "nvme" };
  const path =
    (wanted.parameters ? parameter.nvme_path : undefined) ??
    (wanted.optimizer ? optimizer.nvme_path : undefined) ??
    nvme_path;
  const spillsAlways = config.activation_checkpointing.cpu_checkpointing;
  const subGroup = Math.min(sub_group_size, largestSubGroup);
  const underWay = optimizer.buffer_count * subGroup * 4;
  const arena = limit === undefined ? undefined : arenaLimit(limit, facts);
  if (path === undefined) {
    if (limit === undefined) return [undefined];
    throw new ConfigError("no_disk_path", "memory.limit needs a folder for what does not fit", {
      where: "memory.nvme_path",
      expected: "a folder on a disk with room for the training's states",
      hint: "set memory.nvme_path, such as /tmp, or leave memory.limit out",
    });
  }
  const settings = (optimizerOnDisk: boolean, gradients: boolean, parameters: boolean): OffloadSettings => ({
    path,
    io: { requestBytes: aio.block_size, queueDepth: aio.queue_depth, threads: aio.thread_count },
    parameters,
    gradients,
    optimizer: optimizerOnDisk,
    subGroup,
    window:
      parameter.buffer_size === "auto" ? largestWindow : parameter.buffer_count * parameter.buffer_size * 4,
    updateWindow: {
      read: optimizer.pipeline_read ? underWay : 0,
      write: optimizer.pipeline_write ? underWay : 0,
    },
    spillsAlways,
    halfParameters: parameters && facts.computesInHalf,
    ...(arena === undefined ? {} : { arenaLimit: arena, spillBytes: arena }),
  });
  const asked = settings(wanted.optimizer, wanted.parameters, wanted.parameters);
  if (limit === undefined)
    return wanted.optimizer || wanted.parameters || spillsAlways ? [asked] : [undefined];
  const ladder = [
    asked,
    settings(true, wanted.parameters, wanted.parameters),
    settings(true, true, wanted.parameters),
    settings(true, true, true),
  ];
  return ladder.filter(
    (place, index) => index === 0 || JSON.stringify(place) !== JSON.stringify(ladder[index - 1]),
  );
}

/** Bytes that states and arenas of a rank may take together. */
function arenaLimit(limit: number, { ranks, residentBytes }: PlacementFacts): number {
  return Math.floor((limit - residentBytes - unplannedBytes) / ranks);
}

/** What an engine that was built for a placement takes. */
export interface PlacedBytes {
  readonly arena: number;
  readonly prepared: number;
  /** Buffers in memory. */
  readonly states: number;
}

/**
 * Builds with the first placement that fits.
 * @throws ConfigError (`memory_limit_too_small`) with the smallest limit that would do where none does.
 */
export function buildPlaced<Built extends { dispose(): void }>(
  config: TrainConfig,
  facts: PlacementFacts,
  build: (offload: OffloadSettings | undefined) => Built,
  bytesOf: (built: Built) => PlacedBytes,
): Built {
  const { limit } = config.memory;
  const placements = placementsOf(config, facts);
  if (limit === undefined) {
    const [asked] = placements;
    if (asked?.spillsAlways !== true) return build(asked);
    const { arena } = measure(() => build(asked), bytesOf);
    return build({ ...asked, spillBytes: arena * 2 });
  }
  let least = Number.POSITIVE_INFINITY;
  for (const placement of placements) {
    const room = placement!.arenaLimit!;
    // What is bound is in memory all the time: arenas get what is left.
    const { arenaLimit: _limit, spillBytes: _spill, ...unlimited } = placement!;
    const measured = measure(() => build(unlimited), bytesOf);
    const left = room - measured.states - measured.prepared;
    if (left <= 0) {
      least = Math.min(least, measured.states + measured.prepared);
      continue;
    }
    try {
      const spillBytes = placement!.spillsAlways ? measured.arena * 2 : Math.min(left, measured.arena * 2);
      return build({ ...placement!, arenaLimit: left, spillBytes });
    } catch (error) {
      if (!(error instanceof MemoryLimitError)) throw error;
      least = Math.min(least, measured.states + measured.prepared + error.leastBytes);
    }
  }
  const smallest = Math.ceil(least * facts.ranks + facts.residentBytes + unplannedBytes);
  throw new ConfigError("memory_limit_too_small", "no placement of the training fits in the memory limit", {
    where: "memory.limit",
    expected: `at least ${formatBytes(smallest)}`,
    received: formatBytes(limit),
    hint: "raise the limit, lower train_micro_batch_size_per_gpu or data.sequence_length, or set activation_checkpointing.mode",
  });
}

function measure<Built extends { dispose(): void }>(
  build: () => Built,
  bytesOf: (built: Built) => PlacedBytes,
): PlacedBytes {
  const built = build();
  try {
    return bytesOf(built);
  } finally {
    built.dispose();
  }
}
