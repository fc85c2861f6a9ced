/** The scheduler and the key/value cache's blocks, as pure state machines: see docs/serving_engine.md. */
export { Scheduler } from "./scheduler.ts";
export type {
  BlockCopy,
  Chunk,
  CoreOptions,
  CoreRequest,
  CoreStatistics,
  Refusal,
  SampledToken,
  SchedulingPolicy,
  SequenceInfo,
  StepPlan,
} from "./types.ts";
