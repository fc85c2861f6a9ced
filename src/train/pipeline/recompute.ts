import { bytesPerElement } from "../../base/dtype.ts";
import { maximumElements } from "../../base/shape.ts";
import { compileProgram } from "../../compiler/compile.ts";
import type { RecomputePolicy } from "../../compiler/passes/recompute.ts";
import { chooseRecomputePolicy, type RecomputeSetting } from "../../compiler/recompute_policy.ts";
import type { Graph } from "../../graph/graph.ts";
import type { ScheduleMemory } from "../../parallel/pipeline/check.ts";
import { type CutOptions, cutPipeline, type PipelineStage } from "../../parallel/pipeline/cut.ts";
import type { Partition } from "../../parallel/pipeline/partition.ts";

/**
 * What the stages' backward programs compute again. A run of blocks of which only the input is kept ends where a
 * stage does. A budget is for the rank that needs most: its arena and all that it keeps between its programs.
 * @throws ConfigError where no choice meets a budget.
 */
export function pipelineRecomputation(
  graph: Graph,
  setting: RecomputeSetting,
  options: CutOptions,
  memory: readonly ScheduleMemory[],
  chunks: number,
): RecomputePolicy | undefined {
  const { partition } = options;
  const policy = chooseRecomputePolicy(graph, setting, (candidate) => {
    const recompute = candidate === undefined ? undefined : withinStages(candidate, partition);
    const { stages } = cutPipeline(graph, { ...options, recompute });
    const needs = memory.map((held, rank) => {
      const own = Array.from({ length: chunks }, (_, chunk) => stages[chunk * memory.length + rank]!);
      const between = own.reduce((sum, stage) => sum + bytesBetween(stage), 0) / chunks;
      return Math.max(...own.map(arenaBytes)) + between * held.activations;
    });
    return Math.max(...needs);
  });
  return policy === undefined ? undefined : withinStages(policy, partition);
}

/** The policy with runs that span stages cut where the stages are. */
function withinStages(policy: RecomputePolicy, partition: Partition): RecomputePolicy {
  const segments = policy.segments.flatMap((blocks) => {
    const byStage = new Map<number, number[]>();
    for (const block of blocks) {
      const stage = partition.stageOf(block);
      byStage.set(stage, [...(byStage.get(stage) ?? []), block]);
    }
    return [...byStage.values()];
  });
  return { ...policy, segments };
}

/** Bytes that a stage keeps of a micro-batch between its programs. */
function bytesBetween({ values }: PipelineStage): number {
  return values.reduce((sum, { type }) => sum + maximumElements(type.shape) * bytesPerElement(type.dtype), 0);
}

function arenaBytes({ forward, backward, weightGradient }: PipelineStage): number {
  const programs = [forward, backward, weightGradient].filter((program) => program !== undefined);
  return Math.max(0, ...programs.map(({ graph }) => compileProgram(graph).program.arenaBytes));
}
