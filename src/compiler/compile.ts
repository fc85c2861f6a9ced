import type { DType } from "../base/dtype.ts";
import { debugLevel } from "../base/environment.ts";
import type { SymbolValues } from "../base/shape.ts";
import type { Graph } from "../graph/graph.ts";
import type { OpName } from "../graph/ops.ts";
import { costOf, graphCost } from "../graph/rules/cost.ts";
import { verifyGraph } from "../graph/verify.ts";
import type { QuantizedParameters } from "./passes/quantize_parameters.ts";
import type { RecomputePolicy } from "./passes/recompute.ts";
import { backwardUse } from "./passes/separate_uses.ts";
import {
  type Pass,
  passesBeforeRecomputation,
  passesForQuantized,
  passesForStored,
  passesForTiles,
  passesFromRecomputation,
  runPasses,
} from "./pipeline.ts";
import { planProgram } from "./plan/plan.ts";
import type { Program, Step } from "./plan/program.ts";
import type { TierOptions } from "./plan/tiers.ts";
import { chooseRecomputePolicy, type RecomputeSetting } from "./recompute_policy.ts";

/** How to compile a graph. */
export interface ProgramOptions {
  readonly recompute?: RecomputeSetting;
  /** Tiles of tokens in which products between narrow values are computed; 1 by default. The tokens divide into them. */
  readonly tiles?: number;
  /** Parameters that are bound as packed quantized weights instead of floats. */
  readonly quantized?: QuantizedParameters;
  /** Leaves that lie in stores instead of memory. */
  readonly tiers?: TierOptions;
  /** Further passes, after recomputation was chosen and before kernels are: what splits a program over ranks. */
  readonly passes?: readonly Pass[];
}

/** A program with the graph that it was planned from and what it costs. */
export interface CompiledProgram {
  readonly graph: Graph;
  readonly program: Program;
  /** Arithmetic of one run with every symbol at its bound. */
  readonly flops: number;
}

/**
 * Runs the passes and plans the result: the way from a recorded graph to a program for kernels.
 * @throws ConfigError where no recomputation meets a memory budget; InternalError for a malformed graph.
 */
export function compileProgram(graph: Graph, options: ProgramOptions = {}): CompiledProgram {
  verifyGraph(graph);
  // What comes before recomputation is the same for every policy that a budget tries.
  const simplified = runPasses(graph, [
    ...passesBeforeRecomputation,
    ...passesForQuantized(options.quantized ?? new Map()),
    ...passesForTiles(options.tiles),
  ]);
  const tiers = options.tiers === undefined ? undefined : withBackwardUses(options.tiers);
  const planned = new Map<RecomputePolicy | undefined, { graph: Graph; program: Program }>();
  const plan = (policy: RecomputePolicy | undefined): { graph: Graph; program: Program } => {
    const known = planned.get(policy);
    if (known !== undefined) return known;
    const lowered = runPasses(simplified, [
      ...passesFromRecomputation(policy, options.passes),
      ...passesForStored(storedParameters(graph, tiers)),
    ]);
    const result = { graph: lowered, program: planProgram(lowered, tiers) };
    planned.set(policy, result);
    return result;
  };
  const policy = chooseRecomputePolicy(graph, options.recompute ?? { mode: "none" }, (candidate) => {
    return plan(candidate).program.arenaBytes;
  });
  const compiled = plan(policy);
  if (debugLevel() >= 2) process.stderr.write(`${describeProgram(compiled.program)}\n`);
  return { ...compiled, flops: graphCost(compiled.graph).flops };
}

/** The backward pass reads a stored parameter through a leaf of its own, which lies where the parameter does. */
function withBackwardUses(tiers: TierOptions): TierOptions {
  const aliases = [...tiers.leaves].map(([name, place]) => [backwardUse(name), place] as const);
  return { ...tiers, leaves: new Map([...tiers.leaves, ...aliases]) };
}

/** The dtypes in which the parameters of a graph that lie in stores are stored. */
function storedParameters(graph: Graph, tiers: TierOptions | undefined): Map<string, DType> {
  const stored = new Map<string, DType>();
  for (const node of graph.nodes) {
    if (node.op !== "leaf" || node.attributes.kind !== "parameter") continue;
    const place = tiers?.leaves.get(node.attributes.name);
    if (place !== undefined) stored.set(node.attributes.name, place.dtype ?? node.attributes.dtype);
  }
  return stored;
}

/** The ops whose arithmetic counts as the model's own: products and attention. */
const modelOps: ReadonlySet<OpName> = new Set<OpName>([
  "matmul",
  "linear_cross_entropy",
  "linear_cross_entropy_gradient",
  "attention",
  "attention_gradient",
]);

/**
 * The model FLOPs of a graph in a run of these sizes: products and unmasked attention scores, with everything
 * kept, so that neither recomputation nor elementwise work counts as useful (the convention of model FLOPs
 * utilisation in Chowdhery et al., "PaLM", arXiv 2204.02311).
 */
export function modelFlops(graph: Graph, symbols: SymbolValues): number {
  let flops = 0;
  for (const node of runPasses(graph, passesBeforeRecomputation).nodes) {
    if (modelOps.has(node.op)) flops += costOf(node, symbols).flops;
  }
  return flops;
}

/** A program as text: a line a step. */
export function describeProgram(program: Program): string {
  const lines = [
    `program ${program.name}: ${program.steps.length} steps (+${program.prepare.length} prepared), arena ${program.arenaBytes} bytes, prepared ${program.preparedBytes} bytes`,
  ];
  for (const step of [...program.prepare, ...program.steps]) {
    lines.push(`  ${describeStep(program, step)}`);
  }
  return lines.join("\n");
}

function describeStep(program: Program, step: Step): string {
  if (step.kind === "wait") return `wait ${step.ticket}`;
  if (step.kind === "transfer") {
    return `${step.action} t${step.tensor} (${step.store} + ${step.offset})  # ${step.scope}`;
  }
  const add = step.kind !== "start" && step.accumulate ? " (add)" : "";
  if (step.kind === "store") return `store t${step.input} -> t${step.output}${add}`;
  const inputs = step.inputs.map((index) => `t${index}`).join(", ");
  const outputs = step.outputs.map((index) => `t${index}`).join(", ");
  const call = `${outputs} = ${step.op}(${inputs})`;
  if (step.kind === "kernel") return `${call}${add}  # ${step.scope}`;
  return `start ${step.ticket}: ${call} over ${program.groups[step.group]!.axes}  # ${step.scope}`;
}
