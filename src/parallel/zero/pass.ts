import type { Pass } from "../../compiler/pipeline.ts";
import { gatherParameters, largestBlock } from "./gather_parameters.ts";
import type { PartitionedParameter } from "./partition.ts";
import { reduceGradients } from "./reduce_gradients.ts";
import type { ZeroSettings } from "./settings.ts";

/** The leaf that holds what quantizing a gradient, given by its leaf, lost. */
export function residualName(gradient: string): string {
  return `residual of ${gradient}`;
}

/** The leaves of a program that belong to partitioned parameters. */
export interface PartitionedLeaves {
  readonly parameterOf: (leaf: string) => PartitionedParameter | undefined;
  readonly gradientOf: (leaf: string) => PartitionedParameter | undefined;
}

/**
 * The pass that splits a rank's program over the ranks that hold the same parameters. It runs after recomputation
 * was chosen: where parameters are read and gradients made is then settled.
 */
export function partitionStates(leaves: PartitionedLeaves, settings: ZeroSettings): Pass {
  return {
    name: "partition states",
    run: (graph) => {
      const block = largestBlock(graph, leaves.parameterOf);
      const size = (setting: number | "auto"): number => (setting === "auto" ? block : setting);
      const gathered = gatherParameters(graph, {
        parameterOf: leaves.parameterOf,
        maximumLive: settings.maximumLive,
        maximumReuseDistance: size(settings.maximumReuseDistance),
        bucket: settings.overlap ? size(settings.prefetchBucket) : 0,
        quantized: settings.quantizedWeights === true,
      });
      return reduceGradients(gathered, {
        parameterOf: leaves.gradientOf,
        bucket: size(settings.reduceBucket),
        residualOf: settings.quantizedGradients === true ? residualName : undefined,
      });
    },
  };
}
