export { formatPlan } from "./format.ts";
export { measureMachine } from "./machine.ts";
export { countModules, type ModuleCount } from "./modules.ts";
export {
  type MemoryByKind,
  modelToPlan,
  type PlanParts,
  planTraining,
  type StepTime,
  type TrainingPlan,
} from "./plan.ts";
