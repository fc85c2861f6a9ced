import { createNativeBackend, createNullBackend } from "../../backends.ts";
import { RunError } from "../../base/errors.ts";
import type { Machine } from "../../runtime/planning.ts";
import { loadConfig, resolveMesh, type TrainConfig } from "../../train/config/index.ts";
import {
  formatLayouts,
  formatPlan,
  loadCluster,
  machineOf,
  measureMachine,
  modelToPlan,
  planTraining,
  searchLayouts,
  type TrainingPlan,
} from "../../train/plan/index.ts";
import { contextPlanOf } from "../../train/sequence_method.ts";
import type { PlanCommandOptions } from "../commands/plan.ts";

/** What this machine reaches; undefined where native code is not built, which planning does not need. */
async function thisMachine(config: TrainConfig): Promise<Machine | undefined> {
  try {
    return await measureMachine(createNativeBackend(), config.bf16.enabled ? "bf16" : "f32");
  } catch (error) {
    if (error instanceof RunError && error.code.startsWith("addon_")) return undefined;
    throw error;
  }
}

/** Prints what training from a config would take. */
export async function runPlan(options: PlanCommandOptions): Promise<void> {
  const config = loadConfig(options.config, options.overrides);
  const cluster = options.cluster === undefined ? undefined : loadCluster(options.cluster);
  const parts = { config, model: await modelToPlan(config), backend: createNullBackend() };
  if (options.search !== undefined) {
    const found = await searchLayouts({ ...parts, ranks: options.ranks, cluster });
    const shown = found.slice(0, options.search);
    process.stdout.write(`${options.json === true ? JSON.stringify(shown) : formatLayouts(shown)}\n`);
    return;
  }
  const mesh = resolveMesh(config, options.ranks);
  const common = { ...parts, mesh };
  if (cluster !== undefined) {
    const plan = await planTraining({
      ...common,
      machine: machineOf(cluster, mesh, contextPlanOf(config, mesh.sequence)?.grid),
      baselineBytes: cluster.accelerator.baseline,
    });
    print(options, plan, cluster.accelerator.memory);
    return;
  }
  // Measuring the machine takes memory, so what the process itself takes is looked at before.
  const { memory } = await planTraining(common);
  const machine = await thisMachine(config);
  const baselineBytes = memory.baseline;
  print(
    options,
    await planTraining({ ...common, baselineBytes, ...(machine === undefined ? {} : { machine }) }),
  );
}

function print({ json }: PlanCommandOptions, plan: TrainingPlan, available?: number): void {
  process.stdout.write(`${json === true ? JSON.stringify(plan) : formatPlan(plan, available)}\n`);
}
