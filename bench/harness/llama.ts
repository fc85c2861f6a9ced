import type { RecomputeSetting } from "../../src/compiler/recompute_policy.ts";
import type { ConfigJson, LanguageModel, ModelFamily } from "../../src/models/family.ts";
import { familyOf } from "../../src/models/index.ts";
import { ParameterSpace, type ParameterTable } from "../../src/nn/parameters.ts";
import { adam } from "../../src/optim/optimizer.ts";
import type { ZeroSettings } from "../../src/parallel/zero/settings.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { TrainingEngine } from "../../src/train/engine.ts";
import type { TrainingBatch } from "../../src/train/micro_batches.ts";
import type { OffloadSettings } from "../../src/train/offload/settings.ts";
import type { Rank } from "../../src/train/rank.ts";
import type { FloatDType } from "./tensors.ts";

/** The sizes of a Llama whose heads are 64 wide, with an output projection of its own. */
export interface LlamaShape {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly ffn: number;
  readonly vocabulary: number;
}

/** The model of issue 2's training bars: 30 million parameters. */
export const llama30M: LlamaShape = { dim: 512, layers: 8, heads: 8, ffn: 1408, vocabulary: 4096 };

/** A Llama without weights. */
export interface BuiltLlama {
  readonly family: ModelFamily;
  readonly config: ConfigJson;
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
}

/** Builds a Llama. @param dtype in which its parameters are kept. */
export function buildLlama(shape: LlamaShape, dtype: FloatDType = "f32"): BuiltLlama {
  const config = {
    model_type: "llama",
    hidden_size: shape.dim,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    num_key_value_heads: shape.heads,
    intermediate_size: shape.ffn,
    vocab_size: shape.vocabulary,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: false,
  };
  const family = familyOf(config, "benchmark");
  const space = ParameterSpace.create(dtype);
  return { family, config, language: family.build(config, space, "benchmark"), parameters: space.table };
}

/** Rows of equal length, one after another, of random tokens whose next tokens are random too. */
export function randomBatch(rows: number, length: number, vocabulary: number, seed: number): TrainingBatch {
  let state = seed >>> 0;
  const draw = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * vocabulary);
  };
  const tokens = new Int32Array(rows * length);
  const targets = new Int32Array(rows * length);
  for (let row = 0; row < rows; row++) {
    const ids = Int32Array.from({ length: length + 1 }, draw);
    tokens.set(ids.subarray(0, length), row * length);
    targets.set(ids.subarray(1), row * length);
  }
  return {
    tokens,
    targets,
    positions: Int32Array.from(tokens, (_, index) => index % length),
    offsets: Int32Array.from({ length: rows + 1 }, (_, row) => row * length),
    targetCount: rows * length,
  };
}

/** The hyperparameters that the PyTorch peer trains with. */
export const learningRate = 1e-3;

/** How to train in a benchmark. */
export interface TrainingCase {
  readonly shape: LlamaShape;
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly length: number;
  readonly recompute?: RecomputeSetting;
  /** Micro-batches of a step; 1 by default. */
  readonly accumulation?: number;
  readonly offload?: OffloadSettings;
  /** Where several ranks train together, this one, and how they share states. */
  readonly rank?: Rank;
  readonly zero?: ZeroSettings;
}

/** An engine with initialised weights: AdamW and clipping as the PyTorch peer has them. */
export async function startTraining(backend: Backend, training: TrainingCase): Promise<TrainingEngine> {
  const { shape, dtype, rows, length, recompute = { mode: "none" }, accumulation = 1, offload } = training;
  const { language, parameters } = buildLlama(shape);
  const engine = new TrainingEngine({
    backend,
    language,
    parameters,
    dtype,
    optimizer: adam({ betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 }, true),
    microBatchTokens: rows * length,
    microBatchRows: rows,
    accumulationSteps: accumulation,
    gradientClipping: 1,
    // The peer decays every parameter.
    decays: () => true,
    isFrozen: () => false,
    recompute,
    ...(offload === undefined ? {} : { offload }),
    ...(training.rank === undefined ? {} : { rank: training.rank }),
    ...(training.zero === undefined ? {} : { zero: training.zero }),
  });
  await engine.initialize(3);
  return engine;
}
