import { ConfigError, InternalError } from "../../base/errors.ts";
import { gridDimensions } from "../../parallel/context/grid.ts";
import { type MeshSizes, meshAxes } from "../../parallel/mesh.ts";
import type { Machine } from "../../runtime/planning.ts";
import type { TrainConfig } from "../config/index.ts";
import { contextPlanOf } from "../sequence_method.ts";
import { type Cluster, machineOf } from "./cluster.ts";
import { type PlanParts, planTraining, type TrainingPlan } from "./plan.ts";

/** One way to split a training over ranks. */
export interface PlannedLayout {
  readonly mesh: MeshSizes;
  readonly stage: 0 | 1 | 2 | 3;
  readonly plan: TrainingPlan;
}

/** What to search. */
export interface LayoutSearch extends Pick<PlanParts, "config" | "model" | "backend" | "baselineBytes"> {
  readonly ranks: number;
  /** The machines; without a cluster every link is free, and a rank is what a desktop's core may be. */
  readonly cluster: Cluster | undefined;
}

/** What a layout is judged by where no machine is known: products at 100 GFLOP/s, 10 GB/s to memory and to others. */
const plainMachine = { flops: 1e11, bandwidth: 1e10 };
const plainLink = { bandwidth: 1e10, latency: 1e-5 };

/**
 * Plans every layout of so many ranks that the model allows (data, tensor, sequence and pipeline axes, each with the
 * config's ZeRO stage and with stages 1 and 3), and gives those that fit in a rank's memory, the shortest step first;
 * of equal steps the one that takes less memory.
 * @throws ConfigError where none is legal, or none fits.
 */
export async function searchLayouts({
  config,
  model,
  backend,
  ranks,
  cluster,
}: LayoutSearch): Promise<PlannedLayout[]> {
  const found: PlannedLayout[] = [];
  let refused: ConfigError | undefined;
  let smallest = Number.POSITIVE_INFINITY;
  const available = cluster?.accelerator.memory ?? Number.POSITIVE_INFINITY;
  for (const mesh of meshesOf(ranks)) {
    for (const stage of new Set([config.zero_optimization.stage, 1, 3] as const)) {
      if (mesh.data * mesh.sequence === 1 && stage !== config.zero_optimization.stage) continue;
      const candidate = withStage(config, stage);
      try {
        const grid = contextPlanOf(config, mesh.sequence)?.grid;
        const machine = cluster === undefined ? plainMachineOf(mesh) : machineOf(cluster, mesh, grid);
        const baselineBytes = cluster?.accelerator.baseline ?? 0;
        const plan = await planTraining({ config: candidate, model, backend, mesh, machine, baselineBytes });
        smallest = Math.min(smallest, plan.memory.total);
        if (plan.memory.total <= available) found.push({ mesh, stage, plan });
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        refused = error;
      }
    }
  }
  if (found.length > 0) {
    return found.toSorted((a, b) => secondsOf(a) - secondsOf(b) || a.plan.memory.total - b.plan.memory.total);
  }
  if (smallest < Number.POSITIVE_INFINITY) {
    throw new ConfigError("no_layout_fits", `no layout of ${ranks} ranks fits in a rank's memory`, {
      expected: `${smallest} bytes a rank, by the smallest of them`,
      received: `${available} bytes`,
      hint: "lower train_micro_batch_size_per_gpu, compute activations again, or plan for more ranks",
    });
  }
  throw refused ?? new InternalError("no mesh was tried");
}

function secondsOf({ plan }: PlannedLayout): number {
  return plan.time!.seconds;
}

function withStage(config: TrainConfig, stage: 0 | 1 | 2 | 3): TrainConfig {
  return { ...config, zero_optimization: { ...config.zero_optimization, stage } };
}

function plainMachineOf(mesh: MeshSizes): Machine {
  const axes = meshAxes.filter((axis) => mesh[axis] > 1);
  const grid = gridDimensions.map((dimension) => `sequence.${dimension}`);
  const names = [...subsets(axes).map((subset) => subset.join("+")), ...grid];
  const links = new Map(names.map((name) => [name, plainLink]));
  return { ...plainMachine, links };
}

function subsets(axes: readonly string[]): string[][] {
  return axes.reduce<string[][]>((all, axis) => [...all, ...all.map((subset) => [...subset, axis])], [[]]);
}

/** Every way to split ranks over the data, tensor, sequence and pipeline axes. */
export function meshesOf(ranks: number): MeshSizes[] {
  const meshes: MeshSizes[] = [];
  for (const tensor of divisorsOf(ranks)) {
    for (const pipeline of divisorsOf(ranks / tensor)) {
      for (const sequence of divisorsOf(ranks / tensor / pipeline)) {
        const data = ranks / tensor / pipeline / sequence;
        meshes.push({ pipeline, data, expert: 1, sequence, tensor });
      }
    }
  }
  return meshes;
}

function divisorsOf(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1).filter((divisor) => count % divisor === 0);
}
