export { createSchedule } from "./create_schedule.ts";
export {
  type Schedule,
  type ScheduleParameters,
  type ScheduleType,
  scheduleTypes,
  type WarmupType,
} from "./schedule.ts";
export { type LearningRateSuggestion, suggestLearningRates } from "./suggest_learning_rates.ts";
