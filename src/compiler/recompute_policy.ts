import { ConfigError } from "../base/errors.ts";
import type { Graph } from "../graph/graph.ts";
import type { RecomputePolicy } from "./passes/recompute.ts";

/** What the user asks for: which activations to compute again in the backward pass. */
export type RecomputeSetting =
  | { readonly mode: "none" }
  /** Of every run of `every` blocks only the input is kept. */
  | { readonly mode: "every_k"; readonly every: number }
  /** Of every block its input and the results of its attention are kept. */
  | { readonly mode: "keep_attention" }
  /** Runs of about the square root of the number of blocks. */
  | { readonly mode: "sqrt" }
  /** The least extra work that keeps the program's memory within `bytes`. */
  | { readonly mode: "budget"; readonly bytes: number };

/** The numbers of the blocks of a graph's forward pass, in order. */
export function blocksOf(graph: Graph): number[] {
  const blocks = new Set<number>();
  for (const { scope } of graph.nodes) {
    if (scope.phase === "forward" && scope.block !== undefined) blocks.add(scope.block);
  }
  return [...blocks].sort((a, b) => a - b);
}

function inRuns(blocks: readonly number[], length: number): number[][] {
  const runs: number[][] = [];
  for (let start = 0; start < blocks.length; start += length) runs.push(blocks.slice(start, start + length));
  return runs;
}

/** Policies from no extra work to the most, each a little more frugal than the one before. */
function ladder(blocks: readonly number[]): RecomputePolicy[] {
  const policies: RecomputePolicy[] = [{ segments: [], cheap: [] }];
  // Cheap results first: they cost bytes moved, not products. Then whole blocks, one by one, from the first,
  // whose activations live longest. Then longer and longer runs.
  for (let count = 1; count <= blocks.length; count++)
    policies.push({ segments: [], cheap: blocks.slice(0, count) });
  for (let count = 1; count <= blocks.length; count++) {
    policies.push({ segments: inRuns(blocks.slice(0, count), 1), cheap: blocks.slice(count) });
  }
  for (let length = 2; length * length <= blocks.length * 2; length++) {
    policies.push({ segments: inRuns(blocks, length), cheap: [] });
  }
  return policies;
}

/**
 * The policy for a setting; undefined where nothing is to be recomputed.
 * @param memoryOf bytes that the program needs under a policy; called only for a budget.
 * @throws ConfigError where no policy meets the budget, with the smallest that would do.
 */
export function chooseRecomputePolicy(
  graph: Graph,
  setting: RecomputeSetting,
  memoryOf: (policy: RecomputePolicy | undefined) => number,
): RecomputePolicy | undefined {
  const blocks = blocksOf(graph);
  switch (setting.mode) {
    case "none":
      return undefined;
    case "every_k":
      return { segments: inRuns(blocks, setting.every), cheap: [] };
    case "keep_attention":
      return { segments: inRuns(blocks, 1), cheap: [], keepsAttention: true };
    case "sqrt":
      return { segments: inRuns(blocks, Math.max(1, Math.round(Math.sqrt(blocks.length)))), cheap: [] };
    case "budget":
      return withinBudget(ladder(blocks), setting.bytes, memoryOf);
  }
}

function withinBudget(
  policies: readonly RecomputePolicy[],
  budget: number,
  memoryOf: (policy: RecomputePolicy) => number,
): RecomputePolicy {
  const measured = new Map<number, number>();
  const bytesAt = (index: number): number => {
    const known = measured.get(index) ?? memoryOf(policies[index]!);
    measured.set(index, known);
    return known;
  };
  // Memory falls along the ladder but for its last rungs: search by halves, and only then one by one.
  let low = 0;
  let high = policies.length - 1;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (bytesAt(middle) <= budget) high = middle;
    else low = middle + 1;
  }
  const found = bytesAt(low) <= budget ? low : policies.findIndex((_, index) => bytesAt(index) <= budget);
  if (found >= 0) return policies[found]!;
  const smallest = Math.min(...policies.map((_, index) => bytesAt(index)));
  throw new ConfigError("budget_too_small", "no choice of recomputation meets the memory budget", {
    expected: `activation_checkpointing.memory_budget of at least ${smallest} bytes`,
    received: `${budget} bytes`,
    hint: "raise the budget, or lower the micro-batch size or the sequence length",
  });
}
