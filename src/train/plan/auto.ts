import { ConfigError } from "../../base/errors.ts";
import type { MeshSizes } from "../../parallel/mesh.ts";
import type { PlanningBackend } from "../../runtime/planning.ts";
import type { TrainConfig } from "../config/index.ts";
import { memoryLimit } from "../memory.ts";
import type { ModelShape } from "../setup.ts";
import { modelToPlan } from "./plan.ts";
import { describeLayout, type PlannedLayout, searchLayouts } from "./search.ts";

/** What `parallel: auto` chose. */
export interface ChosenLayout {
  /** The config with every axis of the mesh set. */
  readonly config: TrainConfig;
  /** All layouts that were possible, the chosen one first. */
  readonly layouts: readonly PlannedLayout[];
  /** What was chosen and why, in a line. */
  readonly reason: string;
}

/** What to choose for. */
export interface LayoutChoice {
  readonly config: TrainConfig;
  readonly ranks: number;
  /** The null backend. */
  readonly backend: PlanningBackend;
  /** Ranks that share a process, and so this machine's memory; 1 where each has its own. */
  readonly ranksInProcess: number;
  readonly model?: ModelShape;
}

/**
 * Chooses the axes that `parallel` leaves out, where it says `auto`: of the layouts that the model allows and that fit
 * in this machine's memory the one that trains most tokens a second on the nominal machine (`nominalMachineOf`). The
 * same config gives the same layout in every process. Undefined where nothing is left to the planner.
 * @throws ConfigError where no layout is legal, or none fits.
 */
export async function chooseLayout(choice: LayoutChoice): Promise<ChosenLayout | undefined> {
  const { config, ranks, backend, ranksInProcess } = choice;
  if (!config.parallel.auto || ranks === 1) return undefined;
  const layouts = await searchLayouts({
    ...{ config, ranks, backend, ranksInProcess },
    model: choice.model ?? (await modelToPlan(config)),
    cluster: undefined,
    fixed: givenAxes(config),
    stages: [],
    baselineBytes: process.memoryUsage.rss(),
    // Processes may be on other machines, whose memory is not known.
    ...(ranksInProcess > 1 ? { available: memoryLimit() } : {}),
  });
  const [best, next] = layouts;
  if (best === undefined) throw new ConfigError("bad_mesh", "no layout was found", { where: "parallel" });
  const { pipeline, data, sequence, tensor } = best.mesh;
  const { parallel } = config;
  return {
    config: { ...config, parallel: { ...parallel, pipeline, data, sequence, tensor } },
    layouts,
    reason: reasonFor(best, next, layouts.length),
  };
}

/** The axes that a config sets itself. */
function givenAxes({ parallel, tensor_parallel: tensorParallel }: TrainConfig): Partial<MeshSizes> {
  const { auto: _, tensor = tensorParallel.autotp_size, ...others } = parallel;
  return Object.fromEntries(Object.entries({ ...others, tensor }).filter(([, size]) => size !== undefined));
}

function reasonFor(best: PlannedLayout, next: PlannedLayout | undefined, count: number): string {
  const chosen = `parallel: auto chose ${describeLayout(best)}`;
  if (next === undefined) return `${chosen}: no other layout is possible`;
  const speed = ({ plan }: PlannedLayout): number => plan.time!.tokensPerSecond;
  const ahead = speed(best) / speed(next) - 1;
  const than = ahead < 0.005 ? "as fast as" : `${(100 * ahead).toFixed(0)}% faster than`;
  return `${chosen}, of ${count} layouts: planned ${than} ${describeLayout(next)}`;
}
