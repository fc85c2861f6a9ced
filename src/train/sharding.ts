import type { TensorData } from "../base/dtype.ts";
import type { SymbolValues } from "../base/shape.ts";
import type { ShardingTable } from "../graph/annotations.ts";
import type { Graph } from "../graph/graph.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import { type ContextPlan, contextParallel } from "../parallel/context/context_parallel.ts";
import { reorderTokens } from "../parallel/context/token_order.ts";
import type { LocalParameter } from "../parallel/local_parameter.ts";
import type { Mesh } from "../parallel/mesh.ts";
import { cutBatch, padBatch } from "../parallel/sharding/cut_batch.ts";
import { localParameters, shardTraining } from "../parallel/sharding/shard_training.ts";
import type { TrainingBatch } from "./micro_batches.ts";

/** What a program binds of a batch: its leaves by name, and the values of its symbols. */
export interface BoundBatch {
  readonly leaves: Readonly<Record<string, TensorData>>;
  readonly symbols: SymbolValues;
}

/** A recorded graph as this rank runs it. */
export interface LocalProgram {
  readonly graph: Graph;
  /** Names of the leaves that hold a batch. */
  readonly batchLeaves: readonly string[];
  /** The rank's part of a batch. */
  bind(batch: TrainingBatch): BoundBatch;
}

/** How the programs of a model are split over the tensor and sequence axes of a mesh. */
export interface ProgramSharding {
  /** What this rank holds of the parameters. */
  readonly locals: readonly LocalParameter[];
  /** What becomes of a graph that is recorded over whole tensors. */
  shard(graph: Graph): LocalProgram;
}

const wholeLeaves = ["tokens", "targets", "positions", "offsets"];

/** A graph as it was recorded: every rank has all of its batch. */
export function wholeProgram(graph: Graph): LocalProgram {
  return {
    graph,
    batchLeaves: wholeLeaves,
    bind: ({ tokens, targets, positions, offsets }) => ({
      leaves: { tokens, targets, positions, offsets },
      symbols: { tokens: tokens.length, offsets: offsets.length },
    }),
  };
}

/**
 * How a model's programs are split over a mesh; undefined where it has neither a tensor nor a sequence axis.
 * @param context how attention meets the tokens of other ranks of the sequence axis; tokens are exchanged for heads
 * (Jacobs et al., "DeepSpeed Ulysses", arXiv 2309.14509) without it
 * @param cutsTokensOverTensor whether norms and what else lies between the matrices may be cut by tokens over `tensor`
 * @throws ConfigError where heads or parameters do not divide among the ranks.
 */
export function createSharding(
  parameters: ParameterTable,
  table: ShardingTable,
  mesh: Mesh,
  context?: ContextPlan,
  cutsTokensOverTensor = true,
): ProgramSharding | undefined {
  if (mesh.sizes.tensor * mesh.sizes.sequence === 1) return undefined;
  return {
    locals: localParameters(mesh, parameters, table),
    shard: (recorded) => {
      const mode = { attention: context === undefined ? "heads" : "tokens", cutsTokensOverTensor } as const;
      const sharded = shardTraining(recorded, mesh, parameters, table, mode);
      const { inputs, tokenMultiple } = sharded;
      const batchLeaves = inputs.flatMap(({ name, source }) => (wholeLeaves.includes(source) ? [name] : []));
      const bind = (batch: TrainingBatch): BoundBatch => cutBatch(batch, inputs, mesh, tokenMultiple);
      if (context === undefined) return { graph: sharded.graph, batchLeaves, bind };
      return {
        graph: contextParallel(sharded.graph, mesh, context),
        batchLeaves,
        bind: (batch) => {
          const padded = padBatch(batch, tokenMultiple);
          return bind({ ...batch, ...reorderTokens(padded, context.order, mesh.sizes.sequence) });
        },
      };
    },
  };
}
