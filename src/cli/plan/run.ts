import { availableParallelism } from "node:os";
import { createNativeBackend, createNullBackend } from "../../backends.ts";
import { environmentVariables, readInteger } from "../../base/environment.ts";
import { RunError } from "../../base/errors.ts";
import type { Machine } from "../../runtime/planning.ts";
import { loadConfig, resolveMesh, type TrainConfig } from "../../train/config/index.ts";
import {
  type Cluster,
  chooseLayout,
  formatLayouts,
  formatPlan,
  loadCluster,
  machineOf,
  measureMachine,
  modelToPlan,
  nominalMachineOf,
  type PlanParts,
  planTraining,
  searchLayouts,
  type TrainingPlan,
} from "../../train/plan/index.ts";
import { contextPlanOf } from "../../train/sequence_method.ts";
import type { PlanCommandOptions } from "../commands/plan.ts";

/** What this machine reaches; undefined where native code is not built, which planning does not need. */
async function thisMachine(config: TrainConfig, threads: number): Promise<Machine | undefined> {
  try {
    return await measureMachine(createNativeBackend({ threads }), config.bf16.enabled ? "bf16" : "f32");
  } catch (error) {
    if (error instanceof RunError && error.code.startsWith("addon_")) return undefined;
    throw error;
  }
}

/** Prints what training from a config would take. */
export async function runPlan(options: PlanCommandOptions): Promise<void> {
  const { ranks } = options;
  const config = loadConfig(options.config, options.overrides);
  const cluster = options.cluster === undefined ? undefined : loadCluster(options.cluster);
  // Ranks of this machine are those of one process, which share its cores.
  const cores = readInteger(environmentVariables.threads, 1, 256) ?? availableParallelism();
  const threads = Math.max(1, Math.floor(cores / (cluster === undefined ? ranks : 1)));
  const ranksInProcess = cluster === undefined ? ranks : 1;
  const model = await modelToPlan(config);
  const parts = { config, model, backend: createNullBackend({ threads }), ranksInProcess };
  const { search } = options;
  if (search !== undefined) {
    const found = await searchLayouts({ ...parts, ranks, cluster, fixed: {} });
    const shown = found.slice(0, search);
    print(options, shown, () => formatLayouts(shown, found.length));
    return;
  }
  const chosen = cluster === undefined ? await chooseLayout({ ...parts, ranks }) : undefined;
  const plan = await planOnce({ ...parts, config: chosen?.config ?? config }, ranks, cluster, threads);
  const available = cluster?.accelerator.memory;
  print(options, plan, () =>
    chosen === undefined
      ? formatPlan(plan, available)
      : [
          chosen.reason,
          formatLayouts(chosen.layouts.slice(0, shownAlternatives), chosen.layouts.length),
          "",
          formatPlan(plan, available),
        ].join("\n"),
  );
}

/** Layouts that are shown beside the chosen one. */
const shownAlternatives = 5;

async function planOnce(
  parts: PlanParts,
  ranks: number,
  cluster: Cluster | undefined,
  threads: number,
): Promise<TrainingPlan> {
  const { config } = parts;
  const mesh = resolveMesh(config, ranks);
  const common = { ...parts, mesh };
  if (cluster !== undefined) {
    return await planTraining({
      ...common,
      machine: machineOf(cluster, mesh, contextPlanOf(config, mesh.sequence)?.grid),
      baselineBytes: cluster.accelerator.baseline,
    });
  }
  // Measuring the machine takes memory, so what the process itself takes is looked at before.
  const { memory } = await planTraining(common);
  const measured = await thisMachine(config, threads);
  const baselineBytes = memory.baseline;
  if (measured === undefined) return await planTraining({ ...common, baselineBytes });
  // Ranks reach each other through the memory that they share, but for the links that they pretend to have.
  const shared = { bandwidth: measured.bandwidth, latency: 0 };
  const machine = { ...nominalMachineOf(mesh, config.comm.links, shared), ...measured };
  return await planTraining({ ...common, baselineBytes, machine });
}

function print<Data>({ json }: PlanCommandOptions, data: Data, format: () => string): void {
  process.stdout.write(`${json === true ? JSON.stringify(data) : format()}\n`);
}
