import { scheduleTable } from "../../parallel/pipeline/choose.ts";
import type { ActionKind } from "../../parallel/pipeline/schedules.ts";
import { simulateSchedule } from "../../parallel/pipeline/simulate.ts";
import type { Machine } from "../../runtime/planning.ts";
import type { BatchSizes, TrainConfig } from "../config/index.ts";
import type { StepTime } from "./plan.ts";
import { type PlannedStage, runsOf } from "./stage.ts";

type Times = Pick<StepTime, "seconds" | "compute" | "exposed" | "bubble">;

/** Plays a step of the ranks of a pipeline, one a stage; or of one rank where there is none. */
export function stepTime(
  config: TrainConfig,
  stages: readonly PlannedStage[],
  batch: BatchSizes,
  machine: Machine,
): Times {
  const ranks = stages.map((stage) => {
    const times = stage.programs.map((program) => ({
      name: program.name,
      runs: runsOf(program, batch),
      ...program.executable.time(machine, stage.symbols),
    }));
    const total = (of: (time: (typeof times)[number]) => number): number =>
      times.reduce((sum, time) => sum + time.runs * of(time), 0);
    return {
      times,
      seconds: total(({ seconds }) => seconds),
      compute: total(({ compute }) => compute),
      exposed: total(({ exposed }) => exposed),
    };
  });
  const slowest = ranks.reduce((most, rank) => (rank.seconds > most.seconds ? rank : most));
  const { compute, exposed } = slowest;
  if (stages.length === 1) return { seconds: slowest.seconds, compute, exposed, bubble: 0 };
  const { schedule, chunks = schedule === "interleaved" ? 2 : 1, two_stage_backward } = config.pipeline;
  const table = scheduleTable(schedule, {
    ranks: stages.length,
    microBatches: batch.accumulationSteps,
    chunks,
    twoStageBackward: two_stage_backward,
  });
  const secondsOf = new Map<string, number>();
  for (const { times } of ranks) for (const { name, seconds } of times) secondsOf.set(name, seconds);
  const link = machine.links?.get("pipeline");
  const sent = stages.flatMap(({ engine }) => engine.between?.sent ?? []);
  const transfers = new Map(
    sent.map(({ from, to, bytes, messages }) => [
      `${from} ${to}`,
      link === undefined ? 0 : messages * link.latency + bytes / link.bandwidth,
    ]),
  );
  const played = simulateSchedule(table, {
    transfer: (from, to) => transfers.get(`${from} ${to}`) ?? 0,
    seconds: (kind, stage) => secondsOf.get(`stage ${stage} ${programOfAction(kind)}`) ?? 0,
  });
  // What is not part of the schedule: clearing, norms, the update.
  const outside = ranks.map(({ times }) =>
    times.reduce((sum, { name, seconds }) => sum + (name.startsWith("stage ") ? 0 : seconds), 0),
  );
  return { seconds: played.seconds + Math.max(...outside), compute, exposed, bubble: played.bubble };
}

function programOfAction(kind: ActionKind): string {
  return kind === "input_gradient" ? "backward" : kind;
}
