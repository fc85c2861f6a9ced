import { ConfigError } from "../../base/errors.ts";
import { nearest } from "../../base/suggest.ts";
import { oneCycleSchedule } from "./one_cycle.ts";
import { rangeTestSchedule } from "./range_test.ts";
import { type Schedule, type ScheduleParameters, type ScheduleType, scheduleTypes } from "./schedule.ts";
import { warmupCosineSchedule, warmupDecaySchedule, warmupSchedule } from "./warmup.ts";

/**
 * Builds a schedule from DeepSpeed's `scheduler.type` and `scheduler.params`. `baseLearningRate` is the
 * optimizer's `lr`; `Constant` and `WarmupCosineLR` use it, the others bring their own rates.
 * @throws ConfigError where the type is unknown or a parameter that it requires is missing.
 */
export function createSchedule(
  type: ScheduleType,
  parameters: ScheduleParameters,
  baseLearningRate: number,
): Schedule {
  const required = (name: "total_num_steps" | "cycle_min_lr" | "cycle_max_lr"): number => {
    const value = parameters[name];
    if (value === undefined) {
      throw new ConfigError("missing_parameter", `schedule ${type} needs ${name}`, {
        where: `scheduler.params.${name}`,
        expected: "a number",
        received: "nothing",
      });
    }
    return value;
  };
  switch (type) {
    case "Constant":
      return { learningRate: () => baseLearningRate };
    case "WarmupLR":
      return warmupSchedule(parameters);
    case "WarmupDecayLR":
      return warmupDecaySchedule(parameters, required("total_num_steps"));
    case "WarmupCosineLR":
      return warmupCosineSchedule(parameters, required("total_num_steps"), baseLearningRate);
    case "OneCycle":
      return oneCycleSchedule(parameters, required("cycle_min_lr"), required("cycle_max_lr"));
    case "LRRangeTest":
      return rangeTestSchedule(parameters);
    default: {
      const meant = nearest(String(type satisfies never), scheduleTypes);
      throw new ConfigError("unknown_schedule", `unknown schedule ${JSON.stringify(type)}`, {
        where: "scheduler.type",
        expected: scheduleTypes.join(", "),
        ...(meant === undefined ? {} : { hint: `did you mean ${meant}?` }),
      });
    }
  }
}
