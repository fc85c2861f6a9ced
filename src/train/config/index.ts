export { type BatchKeys, type BatchSizes, holdBatch, resolveBatch } from "./batch.ts";
export { type ConfigKey, describeConfig } from "./describe.ts";
export { loadConfig } from "./load.ts";
export { matchesAny } from "./patterns.ts";
export { type ConfigProblem, InvalidConfigError, type LocatedProblem } from "./problems.ts";
export { batchRanks, describeMesh, requireSplits, resolveMesh, sequenceDegrees } from "./ranks.ts";
export { configReferenceMarkdown } from "./reference.ts";
export { defaultNoDecay } from "./schema/optimizer.ts";
export type {
  OptimizerSection,
  TrainConfig,
} from "./schema/schema.ts";
export { contradictions } from "./semantics.ts";
