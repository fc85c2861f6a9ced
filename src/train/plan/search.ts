import { formatBytes } from "../../base/bytes.ts";
import { ConfigError, InternalError } from "../../base/errors.ts";
import { gridDimensions } from "../../parallel/context/grid.ts";
import { type MeshAxis, type MeshSizes, meshAxes } from "../../parallel/mesh.ts";
import type { Link, Machine } from "../../runtime/planning.ts";
import { contradictions, type TrainConfig } from "../config/index.ts";
import { contextPlanOf } from "../sequence_method.ts";
import { type Cluster, machineOf } from "./cluster.ts";
import { type PlanParts, planTraining, type TrainingPlan } from "./plan.ts";

/** How `zero_optimization` partitions. */
export type ZeroStage = TrainConfig["zero_optimization"]["stage"];

/** One way to split a training over ranks. */
export interface PlannedLayout {
  readonly mesh: MeshSizes;
  readonly stage: ZeroStage;
  readonly plan: TrainingPlan;
}

/** What to search. */
export interface LayoutSearch
  extends Pick<PlanParts, "config" | "model" | "backend" | "baselineBytes" | "ranksInProcess"> {
  readonly ranks: number;
  /** The machines; without a cluster, layouts are compared on the nominal machine. */
  readonly cluster: Cluster | undefined;
  /** Axes that are not to be chosen. */
  readonly fixed?: Partial<MeshSizes>;
  /** ZeRO stages to try: the config's, 1 and 3 by default. */
  readonly stages?: readonly ZeroStage[];
  /** Memory of a process, where no cluster says it; unlimited by default. */
  readonly available?: number;
}

/** What layouts are judged by where no cluster is known: products at 100 GFLOP/s, 10 GB/s to memory and to others. */
export const nominalMachine = { flops: 1e11, bandwidth: 1e10 };
const nominalLink: Link = { bandwidth: 1e10, latency: 1e-5 };

/**
 * Plans every layout of so many ranks that the model and the config allow (data, tensor, sequence and pipeline axes,
 * each with several ZeRO stages), and gives those that fit in memory, most tokens a second first; of equals the one
 * that takes less memory, then the one with the widest data axis.
 * @throws ConfigError where none is legal, or none fits.
 */
export async function searchLayouts(search: LayoutSearch): Promise<PlannedLayout[]> {
  const { config, ranks, cluster, fixed = {} } = search;
  const { stage: asked } = config.zero_optimization;
  const stages = new Set([asked, ...(search.stages ?? ([1, 3] as const))]);
  const available = cluster?.accelerator.memory ?? search.available ?? Number.POSITIVE_INFINITY;
  const found: PlannedLayout[] = [];
  let refused: ConfigError | undefined;
  let smallest: PlannedLayout | undefined;
  for (const mesh of meshesOf(ranks, fixed)) {
    for (const stage of stages) {
      if (mesh.data * mesh.sequence === 1 && stage !== asked) continue;
      try {
        const layout = { mesh, stage, plan: await planLayout(search, mesh, stage) };
        if (smallest === undefined || bytesOf(layout) < bytesOf(smallest)) smallest = layout;
        if (bytesOf(layout) <= available) found.push(layout);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        refused ??= error;
      }
    }
  }
  if (found.length > 0) return found.toSorted(compareLayouts);
  if (smallest !== undefined) {
    throw new ConfigError("no_layout_fits", `no layout of ${ranks} ranks fits in memory`, {
      expected: `${formatBytes(bytesOf(smallest))}, by the smallest of them: ${describeLayout(smallest)}`,
      received: formatBytes(available),
      hint: "lower train_micro_batch_size_per_gpu, compute activations again (activation_checkpointing.mode), or plan for more ranks",
    });
  }
  throw refused ?? noMesh(ranks, fixed);
}

/** A layout in words: `data 2 x tensor 4, ZeRO 1`. */
export function describeLayout({ mesh, stage }: Pick<PlannedLayout, "mesh" | "stage">): string {
  const wide = meshAxes.filter((axis) => mesh[axis] > 1).map((axis) => `${axis} ${mesh[axis]}`);
  return `${wide.length === 0 ? "one rank" : wide.join(" x ")}, ZeRO ${stage}`;
}

/** Bytes that must fit: of all ranks of the process where there are several, of one rank otherwise. */
function bytesOf({ plan }: PlannedLayout): number {
  return (plan.process?.memory ?? plan.memory).total;
}

function compareLayouts(a: PlannedLayout, b: PlannedLayout): number {
  const speed = (layout: PlannedLayout): number => layout.plan.time!.tokensPerSecond;
  return speed(b) - speed(a) || bytesOf(a) - bytesOf(b) || b.mesh.data - a.mesh.data;
}

/** @throws ConfigError where the config or the model do not allow the layout. */
async function planLayout(search: LayoutSearch, mesh: MeshSizes, stage: ZeroStage): Promise<TrainingPlan> {
  const { cluster, model, backend, ranksInProcess, baselineBytes } = search;
  const { pipeline, data, sequence, tensor } = mesh;
  const config = {
    ...search.config,
    zero_optimization: { ...search.config.zero_optimization, stage },
    parallel: { ...search.config.parallel, pipeline, data, sequence, tensor },
  };
  const [problem] = contradictions(config, () => false);
  if (problem !== undefined) {
    const { summary, path, expected = "a layout that the config allows", received } = problem;
    throw new ConfigError("bad_mesh", summary, {
      where: path.join("."),
      expected,
      received: received ?? describeLayout({ mesh, stage }),
    });
  }
  const machine =
    cluster === undefined
      ? nominalMachineOf(mesh, config.comm.links)
      : machineOf(cluster, mesh, contextPlanOf(config, sequence)?.grid);
  return await planTraining({
    ...{ config, model, backend, mesh, machine },
    baselineBytes: cluster?.accelerator.baseline ?? baselineBytes ?? 0,
    ...(ranksInProcess === undefined ? {} : { ranksInProcess }),
  });
}

/**
 * The machine that layouts are compared on where no cluster is known: the same everywhere, so that every process of a
 * run chooses alike. Links that a config pretends to have count.
 * @param others the link of axes that have none of their own
 */
export function nominalMachineOf(
  mesh: MeshSizes,
  links: Readonly<Partial<Record<MeshAxis, Link | undefined>>> = {},
  others: Link = nominalLink,
): Machine {
  const slower = (a: Link, b: Link): Link => (b.bandwidth < a.bandwidth ? b : a);
  const linkOf = (axes: readonly MeshAxis[]): Link =>
    axes.map((axis) => links[axis] ?? others).reduce(slower);
  const wide = meshAxes.filter((axis) => mesh[axis] > 1);
  const groups = subsets(wide).filter((axes) => axes.length > 0);
  return {
    ...nominalMachine,
    links: new Map([
      ...groups.map((axes): [string, Link] => [axes.join("+"), linkOf(axes)]),
      ...gridDimensions.map((dimension): [string, Link] => [`sequence.${dimension}`, linkOf(["sequence"])]),
    ]),
  };
}

function subsets(axes: readonly MeshAxis[]): MeshAxis[][] {
  return Array.from({ length: 2 ** axes.length }, (_, mask) =>
    axes.filter((_, index) => (mask >> index) % 2 === 1),
  );
}

/** Every way to split ranks over the data, tensor, sequence and pipeline axes that has the fixed sizes. */
export function meshesOf(ranks: number, fixed: Partial<MeshSizes> = {}): MeshSizes[] {
  const meshes: MeshSizes[] = [];
  for (const tensor of divisorsOf(ranks)) {
    for (const pipeline of divisorsOf(ranks / tensor)) {
      for (const sequence of divisorsOf(ranks / tensor / pipeline)) {
        const data = ranks / tensor / pipeline / sequence;
        const mesh = { pipeline, data, expert: 1, sequence, tensor };
        if (meshAxes.every((axis) => (fixed[axis] ?? mesh[axis]) === mesh[axis])) meshes.push(mesh);
      }
    }
  }
  return meshes;
}

function noMesh(ranks: number, fixed: Partial<MeshSizes>): Error {
  const given = meshAxes.filter((axis) => fixed[axis] !== undefined).map((axis) => `${axis} ${fixed[axis]}`);
  if (given.length === 0) return new InternalError("no mesh was tried");
  return new ConfigError("bad_mesh", "no mesh of so many ranks has the axes that are given", {
    where: "parallel",
    expected: `axes that divide ${ranks} ranks`,
    received: given.join(" x "),
  });
}

function divisorsOf(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1).filter((divisor) => count % divisor === 0);
}
