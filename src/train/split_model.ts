import type { LanguageModel } from "../models/family.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import { type BatchSizes, matchesAny, type TrainConfig } from "./config/index.ts";
import { activationDType, recomputeSetting, zeroSettings } from "./engine_settings.ts";
import { joinGrid } from "./grid_groups.ts";
import type { MicroBatchRunner } from "./micro_batches.ts";
import { preparePipeline } from "./pipeline/prepare.ts";
import type { Rank } from "./rank.ts";
import { contextPlanOf } from "./sequence_method.ts";
import { createSharding, type ProgramSharding } from "./sharding.ts";
import type { RunnerContext } from "./single_program.ts";
import { joinSubgroups } from "./subgroups.ts";

/** How the mesh splits a model for one rank: what its engine takes. */
export interface SplitModel {
  /** The rank with every group that its programs need. */
  readonly rank: Rank;
  readonly sharding?: ProgramSharding;
  readonly createRunner?: (context: RunnerContext) => MicroBatchRunner;
}

/**
 * Splits a model over the mesh of a config. A collective: every rank of the world calls it alike.
 * @throws ConfigError where the model, the schedule or the degrees do not fit the mesh.
 */
export async function splitModel(
  config: TrainConfig,
  batch: BatchSizes,
  { language, parameters }: { readonly language: LanguageModel; readonly parameters: ParameterTable },
  rank: Rank,
): Promise<SplitModel> {
  const context = contextPlanOf(config, rank.mesh.sizes.sequence);
  const partitioned = await joinSubgroups(rank, zeroSettings(config));
  const joined = context === undefined ? partitioned : await joinGrid(partitioned, context.grid);
  const sharding = createSharding(
    parameters,
    language.sharding ?? [],
    rank.mesh,
    context,
    config.tensor_parallel.sequence_sharded_norms,
  );
  const split = { rank: joined, ...(sharding === undefined ? {} : { sharding }) };
  if (rank.mesh.sizes.pipeline === 1) return split;
  const { schedule, two_stage_backward: twoStageBackward, chunks = 2, partition } = config.pipeline;
  const prepared = preparePipeline({
    rank: joined,
    settings: {
      schedule,
      twoStageBackward,
      chunks: schedule === "interleaved" ? chunks : 1,
      partition,
    },
    language,
    parameters,
    dtype: activationDType(config),
    isFrozen: (name) => matchesAny(name, config.frozen_parameters),
    microBatchTokens: batch.microBatchSize * config.data.sequence_length,
    microBatchRows: batch.microBatchSize,
    accumulationSteps: batch.accumulationSteps,
    recompute: recomputeSetting(config),
    sharding,
  });
  return { ...split, ...prepared };
}
