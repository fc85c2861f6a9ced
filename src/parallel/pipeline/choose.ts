import {
  gpipe,
  interleaved,
  oneForwardOneBackward,
  type PipelineSchedule,
  type ScheduleTable,
  zeroBubble,
} from "./schedules.ts";
import { withTwoStageBackward } from "./two_stage.ts";

/** What a schedule is made for. */
export interface ScheduleShape {
  /** Ranks of the pipeline. */
  readonly ranks: number;
  readonly microBatches: number;
  /** Stages of each rank: 1 but for `interleaved` and `gpipe`. */
  readonly chunks: number;
  readonly twoStageBackward: boolean;
}

/**
 * The table of a schedule by its name.
 * @throws ConfigError where the interleaved schedule cannot deal the micro-batches out.
 */
export function scheduleTable(schedule: PipelineSchedule, shape: ScheduleShape): ScheduleTable {
  const { ranks, microBatches, chunks, twoStageBackward } = shape;
  const whole = (table: ScheduleTable): ScheduleTable =>
    twoStageBackward ? withTwoStageBackward(table) : table;
  switch (schedule) {
    case "gpipe":
      return whole(gpipe(ranks, microBatches, chunks));
    case "1f1b":
      return whole(oneForwardOneBackward(ranks, microBatches));
    case "interleaved":
      return whole(interleaved(ranks, microBatches, chunks));
    case "zero_bubble":
      // It is made of the halves, with or without being asked for them.
      return zeroBubble(ranks, microBatches);
  }
}
