import type { Schedule, ScheduleParameters } from "./schedule.ts";

/**
 * OneCycle (super-convergence; Smith, arXiv 1803.09820): the rate rises from `low` to `high` and falls
 * back while the momentum does the opposite, then both decay.
 *
 * Kept from DeepSpeed: the very first update runs at `cycle_min_mom`. Stairs follow DeepSpeed's
 * documentation (its code reads the stair counts and ignores them): each half holds its value for
 * `step size / stair count` steps.
 */
export function oneCycleSchedule(parameters: ScheduleParameters, low: number, high: number): Schedule {
  const firstSteps = parameters.cycle_first_step_size ?? 2000;
  const secondSteps = parameters.cycle_second_step_size ?? firstSteps;
  const firstStairs = parameters.cycle_first_stair_count ?? 0;
  const secondStairs = parameters.cycle_second_stair_count ?? firstStairs;
  const totalSteps = firstSteps + secondSteps;

  /** How far up the cycle update `step` is: 0 at both ends, 1 at the top. */
  const height = (step: number): number => {
    const position = step % totalSteps;
    return position <= firstSteps
      ? climb(position, firstSteps, firstStairs)
      : 1 - climb(position - firstSteps, secondSteps, secondStairs);
  };
  /** Decay intervals since the cycle ended; none where there is no decay. */
  const interval = parameters.decay_step_size ?? 0;
  const decayed = (step: number) => (interval === 0 ? 0 : (step - totalSteps) / interval);

  const rateDecay = parameters.decay_lr_rate ?? 0;
  const learningRate = (step: number): number =>
    step <= totalSteps ? low + (high - low) * height(step) : low / (1 + rateDecay * decayed(step));
  if (parameters.cycle_momentum === false) return { learningRate };

  const lowMomentum = parameters.cycle_min_mom ?? 0.8;
  const highMomentum = parameters.cycle_max_mom ?? 0.9;
  const momentumDecay = parameters.decay_mom_rate ?? 0;
  return {
    learningRate,
    momentum(step) {
      if (step === 0) return lowMomentum;
      if (step <= totalSteps) return highMomentum - (highMomentum - lowMomentum) * height(step);
      return highMomentum * (1 + momentumDecay * decayed(step));
    },
  };
}

/** The fraction of a half cycle done at `position`, in stairs where there are any. */
function climb(position: number, steps: number, stairs: number): number {
  return stairs === 0 ? position / steps : Math.floor((position * stairs) / steps) / stairs;
}
