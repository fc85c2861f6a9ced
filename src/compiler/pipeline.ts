import { debugLevel } from "../base/environment.ts";
import type { Graph } from "../graph/graph.ts";
import { printGraph } from "../graph/print.ts";
import { verifyGraph } from "../graph/verify.ts";
import { mergeCommonSubexpressions } from "./passes/common_subexpressions.ts";
import { removeDeadCode } from "./passes/dead_code.ts";
import { fuseElementwise } from "./passes/fuse_elementwise.ts";
import { fuseLossIntoGradient } from "./passes/fuse_loss.ts";
import { fuseMatmulEpilogues } from "./passes/matmul_epilogue.ts";
import { packWeights } from "./passes/pack_weights.ts";
import { type RecomputePolicy, recomputeActivations } from "./passes/recompute.ts";
import { simplify } from "./passes/simplify.ts";
import { splitStoredSums } from "./passes/split_sums.ts";

/** A named step from graph to graph. */
export interface Pass {
  readonly name: string;
  readonly run: (graph: Graph) => Graph;
}

/** What the pipeline may do. */
export interface PipelineOptions {
  /** Which activations the backward pass computes again instead of keeping; none by default. */
  readonly recompute?: RecomputePolicy;
}

/** The whole pipeline, in order: from a recorded graph to the one that is planned for kernels. */
export function pipeline(options: PipelineOptions = {}): readonly Pass[] {
  const { recompute } = options;
  return [
    { name: "simplify", run: simplify },
    { name: "merge common subexpressions", run: mergeCommonSubexpressions },
    { name: "fuse the loss into its gradient", run: fuseLossIntoGradient },
    { name: "split stored sums", run: splitStoredSums },
    { name: "remove dead code", run: removeDeadCode },
    { name: "fuse matmul epilogues", run: fuseMatmulEpilogues },
    { name: "remove dead code", run: removeDeadCode },
    ...(recompute === undefined
      ? []
      : [{ name: "recompute activations", run: (graph: Graph) => recomputeActivations(graph, recompute) }]),
    { name: "fuse elementwise", run: fuseElementwise },
    { name: "pack weights", run: packWeights },
    { name: "merge common subexpressions", run: mergeCommonSubexpressions },
    { name: "remove dead code", run: removeDeadCode },
  ];
}

/** Runs passes in order. With `SLIPSTREAM_DEBUG=3` each result is printed and verified. */
export function runPasses(graph: Graph, passes: readonly Pass[]): Graph {
  const debug = debugLevel() >= 3;
  let current = graph;
  for (const pass of passes) {
    current = pass.run(current);
    if (debug) {
      process.stderr.write(`--- ${graph.name}: after "${pass.name}"\n${printGraph(current)}\n`);
      verifyGraph(current);
    }
  }
  return current;
}
