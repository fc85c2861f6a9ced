export { type ChosenLayout, chooseLayout, type LayoutChoice } from "./auto.ts";
export { type Cluster, loadCluster, machineOf } from "./cluster.ts";
export { formatLayouts, formatPlan } from "./format.ts";
export { measureMachine } from "./machine.ts";
export { countModules, type ModuleCount } from "./modules.ts";
export {
  type MemoryByKind,
  modelToPlan,
  type PlanParts,
  planTraining,
  type RankPlan,
  type StepTime,
  type TrainingPlan,
} from "./plan.ts";
export { describeLayout, nominalMachineOf, type PlannedLayout, searchLayouts } from "./search.ts";
