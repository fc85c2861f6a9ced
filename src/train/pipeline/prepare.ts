import type { DType } from "../../base/dtype.ts";
import { InternalError } from "../../base/errors.ts";
import { modelFlops } from "../../compiler/compile.ts";
import type { RecomputeSetting } from "../../compiler/recompute_policy.ts";
import type { LanguageModel } from "../../models/family.ts";
import type { ParameterTable } from "../../nn/parameters.ts";
import type { LocalParameter } from "../../parallel/local_parameter.ts";
import { checkSchedule } from "../../parallel/pipeline/check.ts";
import { scheduleTable } from "../../parallel/pipeline/choose.ts";
import { cutPipeline, type PipelineCut } from "../../parallel/pipeline/cut.ts";
import { type PartitionMethod, partitionBlocks } from "../../parallel/pipeline/partition.ts";
import {
  gpipe,
  type PipelineSchedule,
  type ScheduleTable,
  stageOf,
} from "../../parallel/pipeline/schedules.ts";
import type { Trace } from "../../runtime/trace.ts";
import { wholeModel } from "../layout.ts";
import type { MicroBatchRunner } from "../micro_batches.ts";
import { accumulateGraph, evaluationGraph, gradientName, type TrainedModel } from "../programs.ts";
import type { Rank } from "../rank.ts";
import { type ProgramSharding, wholeProgram } from "../sharding.ts";
import type { RunnerContext } from "../single_program.ts";
import { PipelineChannels } from "./channels.ts";
import { pipelineRecomputation } from "./recompute.ts";
import { PipelineRunner, sharingRanks } from "./runner.ts";

/** How a model is split into the stages of a pipeline, and in which order they run. */
export interface PipelineSettings {
  readonly schedule: PipelineSchedule;
  /** Computes gradients of activations first, those of parameters when there is time. */
  readonly twoStageBackward: boolean;
  /** Stages of each rank; 1 but for `interleaved` (and `gpipe`). */
  readonly chunks: number;
  /** How blocks are dealt out, or how many each stage gets. */
  readonly partition: PartitionMethod | readonly number[];
}

/** What a pipeline is prepared for: what the engine gets, too. */
export interface PipelineSetup {
  readonly rank: Rank;
  readonly settings: PipelineSettings;
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
  readonly dtype: DType;
  readonly isFrozen: (name: string) => boolean;
  readonly microBatchTokens: number;
  readonly microBatchRows: number;
  readonly accumulationSteps: number;
  readonly recompute: RecomputeSetting;
  /** How programs are split over the tensor and sequence axes; not at all by default. */
  readonly sharding?: ProgramSharding | undefined;
  readonly trace?: Trace | undefined;
}

/** What the engine of a pipeline's rank takes. */
export interface PreparedPipeline {
  /** The parameters of this rank's stages. */
  readonly locals: readonly LocalParameter[];
  readonly createRunner: (context: RunnerContext) => MicroBatchRunner;
}

/**
 * Cuts a training into the stages of a pipeline and joins its ranks. A collective: every rank of the pipeline calls
 * it alike.
 * @throws ConfigError where the model cannot be cut into so many stages, the schedule cannot deal out the
 * micro-batches, or no recomputation meets a memory budget.
 */
export async function preparePipeline(setup: PipelineSetup): Promise<PreparedPipeline> {
  const { rank, settings, language, parameters, dtype, isFrozen, accumulationSteps, trace } = setup;
  const { schedule, twoStageBackward, chunks, partition } = settings;
  const group = rank.groups.get("pipeline");
  if (group === undefined) throw new InternalError("there is no group of the pipeline's ranks");
  const { size: ranks } = group;
  const table = scheduleTable(schedule, { ranks, microBatches: accumulationSteps, chunks, twoStageBackward });
  const memory = checkSchedule(table);
  const shard = setup.sharding?.shard ?? wholeProgram;
  const frozen = new Set([...parameters.keys()].filter(isFrozen));
  const model: TrainedModel = { language, parameters, layout: { frozen }, dtype };
  const recorded = accumulateGraph(model, setup.microBatchTokens, accumulationSteps > 1);
  const local = shard(recorded);
  const { graph } = local;
  const split = partitionBlocks(graph, ranks * chunks, partition);
  // Zero bubble runs the halves of backward, whether it is asked for or not.
  const inHalves = table.actions.some((list) => list.some(({ kind }) => kind === "input_gradient"));
  const options = { partition: split, twoStageBackward: inHalves, gradientName };
  const recompute = pipelineRecomputation(graph, setup.recompute, options, memory, chunks);
  const cut = cutPipeline(graph, { ...options, recompute });
  const channels = await PipelineChannels.open(group, sharingRanks(cut, ranks));
  const flops = modelFlops(recorded, {
    tokens: setup.microBatchTokens,
    offsets: setup.microBatchRows + 1,
  });
  return {
    locals: localsOfRank(setup.sharding?.locals ?? wholeModel(parameters).locals, cut, channels, chunks),
    createRunner: ({ backend, tokens, bindings, passes, groups }) =>
      new PipelineRunner({
        backend,
        channels,
        cut,
        evaluation: () => {
          const batches = shard(evaluationGraph(model, tokens));
          return { cut: cutPipeline(batches.graph, { partition: split, gradientName }), batches };
        },
        batches: local,
        schedule: (microBatches) => tableFor(microBatches, table, inHalves),
        chunks,
        compile: (stage) => backend.compile(stage, { passes, groups }),
        bindings,
        gradientName,
        modelFlops: flops,
        trace,
      }),
  };
}

/** The table of a step; for another number of micro-batches, one that serves any. */
function tableFor(microBatches: number, table: ScheduleTable, inHalves: boolean): ScheduleTable {
  if (microBatches === table.microBatches) return table;
  const { ranks, chunks } = table;
  return inHalves
    ? scheduleTable("gpipe", { ranks, microBatches, chunks, twoStageBackward: true })
    : gpipe(ranks, microBatches, chunks);
}

/**
 * The parameters of a rank's stages. One that several ranks hold counts on the first of them: on the others it is
 * replicated over the pipeline.
 */
function localsOfRank(
  locals: readonly LocalParameter[],
  cut: PipelineCut,
  { rank, ranks }: PipelineChannels,
  chunks: number,
): LocalParameter[] {
  const own = new Set(
    Array.from(
      { length: chunks },
      (_, chunk) => cut.stages[stageOf({ ranks }, rank, chunk)]!.parameters,
    ).flat(),
  );
  const first = (name: string): number =>
    Math.min(...(cut.shared.get(name) ?? []).map((stage) => stage % ranks), rank);
  return locals
    .filter(({ name }) => own.has(name))
    .map((local) =>
      first(local.name) === rank
        ? local
        : { ...local, replicatedOver: ["pipeline", ...local.replicatedOver] },
    );
}
