import type { DType } from "../base/dtype.ts";
import { debugLevel } from "../base/environment.ts";
import type { Graph } from "../graph/graph.ts";
import { printGraph } from "../graph/print.ts";
import { verifyGraph } from "../graph/verify.ts";
import { mergeCommonSubexpressions } from "./passes/common_subexpressions.ts";
import { removeDeadCode } from "./passes/dead_code.ts";
import { fuseElementwise } from "./passes/fuse_elementwise.ts";
import { fuseLossIntoGradient } from "./passes/fuse_loss.ts";
import { joinProducts } from "./passes/join_products.ts";
import { fuseMatmulEpilogues } from "./passes/matmul_epilogue.ts";
import { packWeights } from "./passes/pack_weights.ts";
import { type QuantizedParameters, quantizeParameters } from "./passes/quantize_parameters.ts";
import { type RecomputePolicy, recomputeActivations } from "./passes/recompute.ts";
import { separateUses } from "./passes/separate_uses.ts";
import { simplify } from "./passes/simplify.ts";
import { splitStoredSums } from "./passes/split_sums.ts";
import { tileTokens } from "./passes/tiling/tile_tokens.ts";

/** A named step from graph to graph. */
export interface Pass {
  readonly name: string;
  readonly run: (graph: Graph) => Graph;
}

/** The first half of the pipeline, in order: it simplifies what was recorded and fuses into products. */
export const passesBeforeRecomputation: readonly Pass[] = [
  { name: "simplify", run: simplify },
  { name: "merge common subexpressions", run: mergeCommonSubexpressions },
  { name: "fuse the loss into its gradient", run: fuseLossIntoGradient },
  { name: "split stored sums", run: splitStoredSums },
  { name: "remove dead code", run: removeDeadCode },
  { name: "fuse matmul epilogues", run: fuseMatmulEpilogues },
  { name: "remove dead code", run: removeDeadCode },
];

/** Between the halves, where parameters are held quantized: after epilogues were fused, which products keep. */
export function passesForQuantized(quantized: QuantizedParameters): readonly Pass[] {
  if (quantized.size === 0) return [];
  return [
    { name: "quantize parameters", run: (graph) => quantizeParameters(graph, quantized) },
    { name: "join products", run: joinProducts },
  ];
}

/** Between the halves, where products are computed in tiles of tokens: with their epilogues, and before recomputation. */
export function passesForTiles(tiles = 1): readonly Pass[] {
  if (tiles === 1) return [];
  return [{ name: "tile tokens", run: (graph) => tileTokens(graph, tiles) }];
}

/** After all others, where parameters lie in stores: casts that it adds are fused as well. */
export function passesForStored(stored: ReadonlyMap<string, DType>): readonly Pass[] {
  if (stored.size === 0) return [];
  return [
    { name: "separate uses of stored parameters", run: (graph) => separateUses(graph, stored) },
    { name: "fuse elementwise", run: fuseElementwise },
    { name: "remove dead code", run: removeDeadCode },
  ];
}

/**
 * The second half: what is computed again, and the forms that kernels take.
 * @param parallel what splits the program over ranks, which wants to see the final order of reads.
 */
export function passesFromRecomputation(
  recompute: RecomputePolicy | undefined,
  parallel: readonly Pass[] = [],
): readonly Pass[] {
  return [
    ...(recompute === undefined
      ? []
      : [{ name: "recompute activations", run: (graph: Graph) => recomputeActivations(graph, recompute) }]),
    ...parallel,
    { name: "fuse elementwise", run: fuseElementwise },
    { name: "remove dead code", run: removeDeadCode },
    { name: "pack weights", run: packWeights },
    { name: "merge common subexpressions", run: mergeCommonSubexpressions },
    { name: "remove dead code", run: removeDeadCode },
  ];
}

/**
 * The whole pipeline, in order: from a recorded graph to the one that is planned for kernels.
 * @param recompute which activations the backward pass computes again instead of keeping; none by default.
 */
export function pipeline(recompute?: RecomputePolicy): readonly Pass[] {
  return [...passesBeforeRecomputation, ...passesFromRecomputation(recompute)];
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
