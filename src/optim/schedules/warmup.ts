import type { Schedule, ScheduleParameters } from "./schedule.ts";

/** Warmup in the form that the three warmup schedules share. */
interface Warmup {
  /** Steps of warmup, at least 2 so that the logarithm is not zero. */
  readonly steps: number;
  /** The fraction of warmup done after `iteration` + 1 updates; `iteration` < `steps`. */
  fraction(iteration: number): number;
}

function warmupOf(parameters: ScheduleParameters): Warmup {
  const steps = Math.max(2, parameters.warmup_num_steps ?? 1000);
  const linear = parameters.warmup_type === "linear";
  return {
    steps,
    fraction: (iteration) => (linear ? iteration / steps : Math.log(iteration + 1) / Math.log(steps)),
  };
}

/** WarmupLR: rises from `warmup_min_lr` to `warmup_max_lr`, then stays. */
export function warmupSchedule(parameters: ScheduleParameters): Schedule {
  return warmupThen(parameters, () => 1);
}

/** WarmupDecayLR: rises like WarmupLR, then falls in a straight line to `warmup_min_lr` at `totalSteps`. */
export function warmupDecaySchedule(parameters: ScheduleParameters, totalSteps: number): Schedule {
  const { steps } = warmupOf(parameters);
  const decaySteps = Math.max(1, totalSteps - steps);
  return warmupThen(parameters, (iteration) => Math.max(0, (totalSteps - iteration) / decaySteps));
}

function warmupThen(parameters: ScheduleParameters, after: (iteration: number) => number): Schedule {
  const low = parameters.warmup_min_lr ?? 0;
  const high = parameters.warmup_max_lr ?? 0.001;
  const warmup = warmupOf(parameters);
  return {
    learningRate(step) {
      const iteration = step - 1;
      if (iteration < 0) return low;
      const fraction = iteration < warmup.steps ? warmup.fraction(iteration) : after(iteration);
      return low + (high - low) * fraction;
    },
  };
}

/**
 * WarmupCosineLR: rises from `warmup_min_ratio` of `baseLearningRate` to all of it, then follows half a
 * cosine that reaches `cos_min_ratio` of it at update `totalSteps` (Loshchilov and Hutter, arXiv
 * 1608.03983). The first update has rate 0, and past `totalSteps` the cosine rises again, both as in
 * DeepSpeed; the config check refuses runs that are longer.
 */
export function warmupCosineSchedule(
  parameters: ScheduleParameters,
  totalSteps: number,
  baseLearningRate: number,
): Schedule {
  const warmup = warmupOf(parameters);
  const startRatio = parameters.warmup_min_ratio ?? 0;
  const endRatio = parameters.cos_min_ratio ?? 0.0001;
  const cosineSteps = Math.max(1, totalSteps - warmup.steps);
  return {
    learningRate(step) {
      const iteration = step - 1;
      if (iteration < 0) return 0;
      if (iteration < warmup.steps) {
        return baseLearningRate * (startRatio + (1 - startRatio) * warmup.fraction(iteration));
      }
      const angle = (Math.PI * (iteration - warmup.steps + 1)) / cosineSteps;
      const ratio = endRatio + ((1 - endRatio) * (1 + Math.cos(angle))) / 2;
      return baseLearningRate * Math.max(0, ratio);
    },
  };
}
