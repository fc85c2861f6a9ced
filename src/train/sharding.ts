import type { TensorData } from "../base/dtype.ts";
import type { SymbolValues } from "../base/shape.ts";
import type { ShardingTable } from "../graph/annotations.ts";
import type { Graph } from "../graph/graph.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import type { LocalParameter } from "../parallel/local_parameter.ts";
import type { Mesh } from "../parallel/mesh.ts";
import { cutBatch } from "../parallel/sharding/cut_batch.ts";
import { localParameters, type ShardingMode, shardTraining } from "../parallel/sharding/shard_training.ts";
import type { TrainingBatch } from "./micro_batches.ts";

/** What a program binds of a batch: its leaves by name, and the values of its symbols. */
export interface BoundBatch {
  readonly leaves: Readonly<Record<string, TensorData>>;
  readonly symbols: SymbolValues;
}

/** A recorded graph as this rank runs it. */
export interface LocalProgram {
  readonly graph: Graph;
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

/** A graph as it was recorded: every rank has all of its batch. */
export function wholeProgram(graph: Graph): LocalProgram {
  return {
    graph,
    bind: ({ tokens, targets, positions, offsets }) => ({
      leaves: { tokens, targets, positions, offsets },
      symbols: { tokens: tokens.length, offsets: offsets.length },
    }),
  };
}

/**
 * How a model's programs are split over a mesh; undefined where it has neither a tensor nor a sequence axis.
 * @throws ConfigError where heads or parameters do not divide among the ranks.
 */
export function createSharding(
  parameters: ParameterTable,
  table: ShardingTable,
  mesh: Mesh,
  mode: ShardingMode,
): ProgramSharding | undefined {
  if (mesh.sizes.tensor * mesh.sizes.sequence === 1) return undefined;
  return {
    locals: localParameters(mesh, parameters, table),
    shard: (recorded) => {
      const { graph, inputs, tokenMultiple } = shardTraining(recorded, mesh, parameters, table, mode);
      return { graph, bind: (batch) => cutBatch(batch, inputs, mesh, tokenMultiple) };
    },
  };
}
