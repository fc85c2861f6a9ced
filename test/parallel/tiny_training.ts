import type { DType } from "../../src/base/dtype.ts";
import type { RecomputeSetting } from "../../src/compiler/recompute_policy.ts";
import { packSequences } from "../../src/models/batch.ts";
import { familyOf } from "../../src/models/families.ts";
import { ParameterSpace } from "../../src/nn/parameters.ts";
import { adam, type Optimizer } from "../../src/optim/optimizer.ts";
import type { ContextPlan } from "../../src/parallel/context/context_parallel.ts";
import type { MeshSizes } from "../../src/parallel/mesh.ts";
import { defaultZeroSettings, type ZeroSettings } from "../../src/parallel/zero/settings.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { type StateBytes, TrainingEngine } from "../../src/train/engine.ts";
import { joinGrid } from "../../src/train/grid_groups.ts";
import type { LossScaleSettings } from "../../src/train/loss_scale.ts";
import type { InterleaveSetting } from "../../src/train/offload/interleaver.ts";
import type { OffloadSettings } from "../../src/train/offload/settings.ts";
import type { Rank } from "../../src/train/rank.ts";
import { createSharding } from "../../src/train/sharding.ts";
import { joinSubgroups } from "../../src/train/subgroups.ts";

/** One of the ranks that train together. */
export interface TrainingRank {
  readonly rank: Rank;
  readonly backend: Backend;
}

/** How the tiny model is trained. */
export interface TinyTraining {
  readonly mesh?: Partial<MeshSizes>;
  readonly zero?: Partial<ZeroSettings>;
  readonly accumulation?: number;
  readonly recompute?: RecomputeSetting;
  readonly dtype?: DType;
  readonly optimizer?: Optimizer;
  readonly clipping?: number;
  readonly tied?: boolean;
  readonly layers?: number;
  readonly frozen?: (name: string) => boolean;
  readonly lossScale?: LossScaleSettings;
  readonly steps?: number;
  /** How attention meets the tokens of other ranks of the sequence axis. */
  readonly context?: ContextPlan;
  /** Every rank of a tensor axis computes norms of all tokens. */
  readonly wholeNorms?: boolean;
  readonly offload?: OffloadSettings;
  readonly interleave?: InterleaveSetting;
  readonly learningRate?: number;
  /** Keys of the model's config that differ. */
  readonly model?: Readonly<Record<string, unknown>>;
}

/** What came out of it, the same on every rank. */
export interface TinyOutcome {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly skipped: readonly boolean[];
  readonly parameters: ReadonlyMap<string, Float32Array>;
  readonly evaluation: number;
  readonly bytes: readonly StateBytes[];
  readonly engines: readonly TrainingEngine[];
}

/** Sizes that no number of ranks divides, so that parts are padded. */
const config = {
  model_type: "llama",
  hidden_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  intermediate_size: 41,
  vocab_size: 50,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  tie_word_embeddings: false,
};

/** Rows of a step over all ranks. */
const rowsOfStep = 8;
const rowLength = 9;

function rowsAt(step: number): number[][] {
  return Array.from({ length: rowsOfStep }, (_, row) =>
    Array.from(
      { length: rowLength - (row % 3) },
      (_, place) => ((place * place + 3 * row) * 7 + step * 5) % 47,
    ),
  );
}

/**
 * Trains on all ranks at once, each on its rows of the same global batch.
 * @param join makes the ranks of a mesh
 */
export async function trainTiny(
  ranks: readonly TrainingRank[],
  options: TinyTraining = {},
): Promise<TinyOutcome> {
  const outcomes = await Promise.all(ranks.map((rank) => trainOne(rank, options)));
  const [first] = outcomes as [Awaited<ReturnType<typeof trainOne>>];
  return {
    ...first,
    bytes: outcomes.map(({ bytes }) => bytes),
    engines: outcomes.map(({ engine }) => engine),
  };
}

async function trainOne({ rank: member, backend }: TrainingRank, options: TinyTraining) {
  const { accumulation = 1, steps = 3, tied = false, layers = 2 } = options;
  const zero = { ...defaultZeroSettings, persistenceThreshold: 30, ...options.zero };
  const joined = await joinSubgroups(member, zero);
  const { context } = options;
  const rank = context === undefined ? joined : await joinGrid(joined, context.grid);
  const space = ParameterSpace.create();
  const family = familyOf(config, "test");
  const sizes = { ...config, tie_word_embeddings: tied, num_hidden_layers: layers, ...options.model };
  const language = family.build(sizes, space, "test");
  // Ranks that differ in other axes share their rows.
  const { data } = rank.mesh.place;
  const rows = rowsOfStep / (rank.mesh.sizes.data * accumulation);
  const table = language.sharding ?? [];
  const sharding = createSharding(space.table, table, rank.mesh, context, options.wholeNorms !== true);
  const engine = new TrainingEngine({
    backend,
    language,
    parameters: space.table,
    dtype: options.dtype ?? "f32",
    optimizer: options.optimizer ?? adam({ betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 }, true),
    microBatchTokens: rows * rowLength,
    microBatchRows: rows,
    accumulationSteps: accumulation,
    gradientClipping: options.clipping ?? 1,
    decays: (name) => space.table.get(name)!.shape.length > 1,
    isFrozen: options.frozen ?? (() => false),
    recompute: options.recompute ?? { mode: "none" },
    ...(options.lossScale === undefined ? {} : { lossScale: options.lossScale }),
    rank,
    ...(sharding === undefined ? {} : { sharding }),
    ...(options.offload === undefined ? {} : { offload: options.offload }),
    ...(options.interleave === undefined ? {} : { interleave: options.interleave }),
    zero,
  });
  await engine.initialize(5);
  const losses: number[] = [];
  const norms: number[] = [];
  const skipped: boolean[] = [];
  for (let step = 0; step < steps; step++) {
    const sequences = rowsAt(step);
    const batches = Array.from({ length: accumulation }, (_, index) => {
      const start = (data * accumulation + index) * rows;
      return packSequences(sequences.slice(start, start + rows), language.facts);
    });
    const result = await engine.step(batches, { learningRate: options.learningRate ?? 0.01 });
    losses.push(result.loss);
    norms.push(result.gradientNorm);
    skipped.push(result.skipped);
  }
  const validation = rowsAt(99).slice(data * rows, (data + 1) * rows);
  const evaluation = await engine.evaluate(packSequences(validation, language.facts));
  const parameters = new Map<string, Float32Array>();
  for (const name of space.table.keys()) parameters.set(name, (await engine.gatherParameter(name)).slice());
  return { losses, norms, skipped, evaluation, parameters, bytes: engine.stateBytes, engine };
}
