export {
  configReferenceMarkdown,
  describeConfig,
  loadConfig,
  resolveBatch,
  type TrainConfig,
} from "./config/index.ts";
export { type EngineOptions, type StepResult, type TrainingBatch, TrainingEngine } from "./engine.ts";
export type { RunOutcome } from "./loop.ts";
export { runTraining, type TrainingRequest } from "./run.ts";
