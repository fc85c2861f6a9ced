export {
  configReferenceMarkdown,
  describeConfig,
  loadConfig,
  resolveBatch,
  type TrainConfig,
} from "./config/index.ts";
export { type EngineOptions, type StepResult, TrainingEngine } from "./engine.ts";
export type { RunOutcome } from "./loop.ts";
export type { TrainingBatch } from "./micro_batches.ts";
export { runTraining, type TrainingRequest } from "./run.ts";
