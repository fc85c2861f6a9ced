import type { Schedule, ScheduleParameters } from "./schedule.ts";

/**
 * LRRangeTest (Smith, arXiv 1803.09820): the rate grows from `lr_range_test_min_lr` without end, every
 * step or in stairs, until the loss diverges; `suggestLearningRates` reads the result.
 */
export function rangeTestSchedule(parameters: ScheduleParameters): Schedule {
  const low = parameters.lr_range_test_min_lr ?? 1e-3;
  const stepSize = parameters.lr_range_test_step_size ?? 2000;
  const stepRate = parameters.lr_range_test_step_rate ?? 1;
  const stairs = parameters.lr_range_test_staircase ?? false;
  return {
    learningRate(step) {
      const intervals = stairs ? Math.floor(step / stepSize) : step / stepSize;
      return low * (1 + stepRate * intervals);
    },
  };
}
