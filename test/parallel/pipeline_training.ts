import { createNativeBackend } from "../../src/backends.ts";
import type { DType } from "../../src/base/dtype.ts";
import type { RecomputeSetting } from "../../src/compiler/recompute_policy.ts";
import { familyOf, packSequences } from "../../src/models/index.ts";
import { ParameterSpace } from "../../src/nn/parameters.ts";
import { adam } from "../../src/optim/optimizer.ts";
import { Mesh, type MeshSizes } from "../../src/parallel/mesh.ts";
import { defaultZeroSettings, type ZeroSettings } from "../../src/parallel/zero/settings.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";
import { createLocalWorld } from "../../src/runtime/native/local_world.ts";
import type { Trace } from "../../src/runtime/trace.ts";
import { TrainingEngine } from "../../src/train/engine.ts";
import { type PipelineSettings, preparePipeline } from "../../src/train/pipeline/prepare.ts";
import { joinMesh } from "../../src/train/rank.ts";
import { createSharding } from "../../src/train/sharding.ts";

/** How a tiny Llama is trained on native ranks. */
export interface PipelineTraining {
  readonly mesh: Partial<MeshSizes>;
  readonly pipeline?: Partial<PipelineSettings>;
  readonly zero?: Partial<ZeroSettings>;
  /** Micro-batches of each rank's rows. */
  readonly accumulation?: number;
  readonly layers?: number;
  readonly tied?: boolean;
  /** Heads of keys and values; 1 by default. */
  readonly kvHeads?: number;
  readonly frozen?: (name: string) => boolean;
  readonly recompute?: RecomputeSetting;
  readonly dtype?: DType;
  readonly clipping?: number;
  readonly steps?: number;
  readonly trace?: Trace;
}

/** What came out of it, as rank 0 has it. */
export interface TrainingOutcome {
  readonly losses: readonly number[];
  readonly norms: readonly number[];
  readonly evaluation: number;
  readonly parameters: ReadonlyMap<string, Float32Array>;
  /** Names of the parameters that each rank holds. */
  readonly held: readonly (readonly string[])[];
}

const config = {
  model_type: "llama",
  hidden_size: 24,
  num_attention_heads: 2,
  intermediate_size: 42,
  vocab_size: 50,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
};

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

/** Trains on native ranks of this process, each with one thread. */
export async function trainPipeline(options: PipelineTraining): Promise<TrainingOutcome> {
  const { worldSize } = new Mesh(options.mesh, 0);
  const worlds = createLocalWorld(worldSize, { timeoutSeconds: 60 });
  const outcomes = await Promise.all(worlds.map((world) => trainOne(world, options)));
  return { ...outcomes[0]!, held: outcomes.flatMap(({ held }) => held) };
}

async function trainOne(world: ProcessGroup, options: PipelineTraining): Promise<TrainingOutcome> {
  const { accumulation = 4, layers = 4, tied = false, steps = 3 } = options;
  const backend = createNativeBackend({ threads: 1, isolated: true });
  const mesh = new Mesh(options.mesh, world.rank);
  const rank = await joinMesh(world, mesh);
  const space = ParameterSpace.create();
  const sizes = {
    ...config,
    tie_word_embeddings: tied,
    num_hidden_layers: layers,
    num_key_value_heads: options.kvHeads ?? 1,
  };
  const language = familyOf(sizes, "test").build(sizes, space, "test");
  const ranksOfBatch = mesh.sizes.data;
  const rows = rowsOfStep / (ranksOfBatch * accumulation);
  const shape = {
    language,
    parameters: space.table,
    dtype: options.dtype ?? "f32",
    isFrozen: options.frozen ?? (() => false),
    microBatchTokens: rows * rowLength,
    microBatchRows: rows,
    accumulationSteps: accumulation,
    recompute: options.recompute ?? ({ mode: "none" } as const),
  };
  const settings = { schedule: "1f1b", twoStageBackward: false, chunks: 1, partition: "best" } as const;
  const sharding = createSharding(space.table, language.sharding ?? [], mesh);
  const prepared =
    mesh.sizes.pipeline === 1
      ? {}
      : preparePipeline({
          ...shape,
          rank,
          settings: { ...settings, ...options.pipeline },
          sharding,
          trace: world.rank === 0 ? options.trace : undefined,
        });
  const engine = new TrainingEngine({
    ...shape,
    ...prepared,
    backend,
    optimizer: adam({ betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 }, true),
    gradientClipping: options.clipping ?? 1,
    decays: (name) => space.table.get(name)!.shape.length > 1,
    rank,
    zero: { ...defaultZeroSettings, persistenceThreshold: 30, ...options.zero },
  });
  await engine.initialize(5);
  const microBatches = (step: number) => {
    const first = mesh.place.data * rows * accumulation;
    return Array.from({ length: accumulation }, (_, index) =>
      packSequences(rowsAt(step).slice(first + index * rows, first + (index + 1) * rows), language.facts),
    );
  };
  const losses: number[] = [];
  const norms: number[] = [];
  for (let step = 0; step < steps; step++) {
    const result = await engine.step(microBatches(step), { learningRate: 0.01 });
    losses.push(result.loss);
    norms.push(result.gradientNorm);
  }
  const evaluation = await engine.evaluate(microBatches(steps)[0]!);
  const parameters = new Map<string, Float32Array>();
  for (const name of space.table.keys()) parameters.set(name, (await engine.gatherParameter(name)).slice());
  const held = [[...engine.layout.parameters.keys()]];
  await world.barrier();
  engine.dispose();
  for (const group of rank.groups.values()) group.close();
  world.close();
  backend.dispose();
  return { losses, norms, evaluation, parameters, held };
}
