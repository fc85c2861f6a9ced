import { createNativeBackend, createNullBackend } from "../../backends.ts";
import { ConfigError, RunError } from "../../base/errors.ts";
import type { Machine } from "../../runtime/planning.ts";
import { loadConfig, type TrainConfig } from "../../train/config/index.ts";
import { formatPlan, measureMachine, modelToPlan, planTraining } from "../../train/plan/index.ts";
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
  if (options.ranks > 1) {
    throw new ConfigError(
      "ranks_unavailable",
      "planning for several ranks is not available in this version",
      {
        where: "--ranks",
        expected: "1",
        received: String(options.ranks),
      },
    );
  }
  const config = loadConfig(options.config, options.overrides);
  const parts = { config, model: await modelToPlan(config), backend: createNullBackend() };
  // Measuring the machine takes memory, so what the process itself takes is looked at before.
  const { memory } = planTraining(parts);
  const machine = await thisMachine(config);
  const baselineBytes = memory.baseline;
  const plan = planTraining({ ...parts, baselineBytes, ...(machine === undefined ? {} : { machine }) });
  process.stdout.write(`${options.json === true ? JSON.stringify(plan) : formatPlan(plan)}\n`);
}
