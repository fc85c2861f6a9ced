/**
 * The learning rate (and, where it cycles, the momentum) of every optimizer update.
 *
 * `step` counts the updates already applied: 0 for the first update of a run. DeepSpeed moves its
 * scheduler after each update, so before update `step` its `last_batch_iteration` is `step - 1`, and -1
 * (the initial state) before the first. An update that fp16 loss scaling skips does not count.
 */
export interface Schedule {
  /** The learning rate of update `step`. */
  learningRate(step: number): number;
  /** The momentum (Adam's first beta) of update `step`; undefined where the schedule leaves it alone. */
  momentum?(step: number): number | undefined;
}

/** The schedules, under DeepSpeed's names; `Constant` keeps the optimizer's rate. */
export const scheduleTypes = [
  "Constant",
  "WarmupLR",
  "WarmupDecayLR",
  "WarmupCosineLR",
  "OneCycle",
  "LRRangeTest",
] as const;

/** The name of a schedule. */
export type ScheduleType = (typeof scheduleTypes)[number];

/** How a warmup rises: `log` as log(n) / log(warmup steps), `linear` as n / warmup steps. */
export type WarmupType = "log" | "linear";

/** `scheduler.params` under DeepSpeed's names; which of them count depends on the schedule. */
export interface ScheduleParameters {
  /** WarmupLR, WarmupDecayLR: the rate at the start (default 0). */
  readonly warmup_min_lr?: number | undefined;
  /** WarmupLR, WarmupDecayLR: the rate after warmup (default 0.001, whatever the optimizer's `lr`). */
  readonly warmup_max_lr?: number | undefined;
  /** Steps of warmup (default 1000; fewer than 2 count as 2). */
  readonly warmup_num_steps?: number | undefined;
  /** The warmup's curve (default `log`). */
  readonly warmup_type?: WarmupType | undefined;
  /** WarmupDecayLR, WarmupCosineLR: the step at which decay ends; required. */
  readonly total_num_steps?: number | undefined;
  /** WarmupCosineLR: the rate at the start, as a fraction of the optimizer's `lr` (default 0). */
  readonly warmup_min_ratio?: number | undefined;
  /** WarmupCosineLR: the rate at the end, as a fraction of the optimizer's `lr` (default 0.0001). */
  readonly cos_min_ratio?: number | undefined;
  /** OneCycle: the rate at both ends of the cycle; required. */
  readonly cycle_min_lr?: number | undefined;
  /** OneCycle: the rate at the top of the cycle; required. */
  readonly cycle_max_lr?: number | undefined;
  /** OneCycle: how fast the rate decays after the cycle, per decay interval (default 0: it does not). */
  readonly decay_lr_rate?: number | undefined;
  /** OneCycle: steps of the rising half (default 2000). */
  readonly cycle_first_step_size?: number | undefined;
  /** OneCycle: steps of the falling half (default: as many as the first). */
  readonly cycle_second_step_size?: number | undefined;
  /** OneCycle: stairs in the rising half (default 0: smooth). */
  readonly cycle_first_stair_count?: number | undefined;
  /** OneCycle: stairs in the falling half (default: as many as the first). */
  readonly cycle_second_stair_count?: number | undefined;
  /** OneCycle: steps of one decay interval (default 0: no decay). */
  readonly decay_step_size?: number | undefined;
  /** OneCycle: cycle the momentum inversely to the rate (default true). */
  readonly cycle_momentum?: boolean | undefined;
  /** OneCycle: the momentum at the top of the cycle (default 0.8). */
  readonly cycle_min_mom?: number | undefined;
  /** OneCycle: the momentum at the ends of the cycle (default 0.9). */
  readonly cycle_max_mom?: number | undefined;
  /** OneCycle: how fast the momentum grows after the cycle, per decay interval (default 0). */
  readonly decay_mom_rate?: number | undefined;
  /** LRRangeTest: the rate at the start (default 0.001). */
  readonly lr_range_test_min_lr?: number | undefined;
  /** LRRangeTest: steps over which the rate grows by `lr_range_test_step_rate` (default 2000). */
  readonly lr_range_test_step_size?: number | undefined;
  /** LRRangeTest: growth of the rate over one step size, as a multiple of the start (default 1). */
  readonly lr_range_test_step_rate?: number | undefined;
  /** LRRangeTest: grow in stairs of one step size instead of every step (default false). */
  readonly lr_range_test_staircase?: boolean | undefined;
}
