import { ConfigError } from "../../base/errors.ts";
import type { TrainConfig } from "./schema/schema.ts";

/** The batch sizes of a run, in rows of `data.sequence_length` tokens. */
export interface BatchSizes {
  /** Rows of one optimizer update over all ranks. */
  readonly trainBatchSize: number;
  /** Rows that one rank computes at a time. */
  readonly microBatchSize: number;
  /** Micro-batches of one rank between two updates. */
  readonly accumulationSteps: number;
}

/** The keys of a config that decide the batch sizes. */
export type BatchKeys = Pick<
  TrainConfig,
  "train_batch_size" | "train_micro_batch_size_per_gpu" | "gradient_accumulation_steps"
>;

/**
 * Solves train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x world size for
 * what the config leaves out, as DeepSpeed does: with one of the first two alone, there is no accumulation.
 * @throws ConfigError with the equation and its numbers where it does not hold or has no whole solution.
 */
export function resolveBatch(config: BatchKeys, worldSize = 1): BatchSizes {
  const batch = config.train_batch_size;
  const micro = config.train_micro_batch_size_per_gpu;
  const steps = config.gradient_accumulation_steps;
  if (batch === undefined) {
    if (micro === undefined) throw new ConfigError("bad_batch", missingBatchSize, { hint: batchHint });
    const accumulationSteps = steps ?? 1;
    return {
      trainBatchSize: micro * accumulationSteps * worldSize,
      microBatchSize: micro,
      accumulationSteps,
    };
  }
  const accumulationSteps = steps ?? (micro === undefined ? 1 : batch / (micro * worldSize));
  const microBatchSize = micro ?? batch / (accumulationSteps * worldSize);
  const product = microBatchSize * accumulationSteps * worldSize;
  if (!Number.isInteger(accumulationSteps) || !Number.isInteger(microBatchSize) || product !== batch) {
    throw new ConfigError("bad_batch", "the batch sizes do not multiply out", {
      where: "train_batch_size",
      ...equation(batch, micro, steps, worldSize),
    });
  }
  return { trainBatchSize: batch, microBatchSize, accumulationSteps };
}

/**
 * The batch sizes of a run that goes on with another number of ranks: the batch stays, accumulation makes up.
 * @param choices micro-batch sizes to choose from; without them the run's own, or the next smaller that divides
 * @throws ConfigError with the ranks that the batch can be shared among, where no size divides it.
 */
export function holdBatch(
  held: BatchSizes,
  worldSize: number,
  choices: readonly number[] = Array.from(
    { length: held.microBatchSize },
    (_, index) => held.microBatchSize - index,
  ),
): BatchSizes {
  const { trainBatchSize } = held;
  const microBatchSize = choices
    .toSorted((a, b) => b - a)
    .find((size) => trainBatchSize % (size * worldSize) === 0);
  if (microBatchSize === undefined) {
    throw new ConfigError(
      "bad_batch",
      `a batch of ${trainBatchSize} rows cannot be held on ${worldSize} ranks`,
      {
        where: "train_batch_size",
        expected: `ranks x one of the micro-batch sizes ${choices.toSorted((a, b) => a - b).join(", ")} that divide ${trainBatchSize}`,
        hint: "resume with another number of ranks, or give elasticity.micro_batch_sizes more choices",
      },
    );
  }
  return { trainBatchSize, microBatchSize, accumulationSteps: trainBatchSize / (microBatchSize * worldSize) };
}

/** The message where the config names neither batch size. */
export const missingBatchSize = "the config does not say how many rows a batch has";
/** What to do about it. */
export const batchHint = "set train_batch_size or train_micro_batch_size_per_gpu";

function equation(
  batch: number,
  micro: number | undefined,
  steps: number | undefined,
  worldSize: number,
): { expected: string; received: string; hint: string } {
  const world = `${worldSize} rank${worldSize === 1 ? "" : "s"}`;
  const factors = `${micro ?? "?"} micro x ${steps ?? (micro === undefined ? 1 : "?")} accumulation x ${world}`;
  const known = (micro ?? 1) * (steps ?? 1) * worldSize;
  const solved = micro !== undefined && steps !== undefined;
  return {
    expected: "train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks",
    received: solved
      ? `${batch} != ${factors} = ${known}`
      : `${batch} = ${factors}, and ${batch} does not divide by ${known}`,
    hint: solved
      ? `set train_batch_size to ${known}, or leave one of the three out`
      : `set train_batch_size to a multiple of ${known}, such as ${Math.max(1, Math.round(batch / known)) * known}`,
  };
}
