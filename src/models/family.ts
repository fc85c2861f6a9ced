import type { DType } from "../base/dtype.ts";
import type { ShardingTable } from "../graph/annotations.ts";
import type { AttentionContext } from "../nn/attention.ts";
import type { ParameterSpace } from "../nn/parameters.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A `config.json`, as parsed. */
export type ConfigJson = Readonly<Record<string, unknown>>;

/** What the rest of Slipstream needs to know of any model. */
export interface ModelFacts {
  readonly vocabularySize: number;
  readonly maximumPositions: number;
  readonly layers: number;
  /** Query heads of attention. */
  readonly heads: number;
  /** Key/value heads of the cache. */
  readonly groups: number;
  readonly headSize: number;
}

/** A language model as a function over packed tokens. */
export interface LanguageModel {
  readonly facts: ModelFacts;
  /**
   * The final hidden states `[tokens, size]`, after the last norm.
   * @param tokens i32 `[tokens]` @param positions i32 `[tokens]`, counted within each sequence
   * @param dtype in which the model computes
   */
  hidden(tokens: Tensor, positions: Tensor, context: AttentionContext, dtype: DType): Tensor;
  /** The output projection `[vocabulary, size]`; the embedding where the two are tied. */
  readonly outputWeight: Tensor;
  /** How parameters lie on a mesh of ranks; without, every rank of the tensor axis holds all of them. */
  readonly sharding?: ShardingTable;
}

/** A kind of model: how to read its config, build it, and write its config. */
export interface ModelFamily {
  /** `model_type` in `config.json`. */
  readonly type: string;
  /** The class name under `architectures` when a model is saved. */
  readonly architecture: string;
  /**
   * Builds the model, defining its parameters in `space` under their Hugging Face names.
   * @param where the file, for errors
   * @throws ConfigError naming each key that is missing or wrong.
   */
  build(config: ConfigJson, space: ParameterSpace, where: string): LanguageModel;
  /** The name in a checkpoint file for a parameter's name, where some checkpoints use another. */
  alternativeName?(name: string): string | undefined;
  /** Weights that are stored [inputs, outputs]; all others are [outputs, inputs]. */
  readonly transposedWeights?: RegExp;
  /** Matrices that are never quantized. */
  readonly staysFloat?: RegExp;
  /** Names that checkpoints may hold and that are not parameters (buffers). */
  readonly ignoredNames?: readonly RegExp[];
}
