import type { DType } from "../../base/dtype.ts";
import type { ShardingTable } from "../../graph/annotations.ts";
import { inBlock, withScope } from "../../graph/scope.ts";
import { type AttentionContext, SelfAttention } from "../../nn/attention.ts";
import { Embedding, GatedMlp, Linear, RmsNorm } from "../../nn/layers.ts";
import type { ParameterSpace } from "../../nn/parameters.ts";
import { type RopeScaling, rotaryTable } from "../../nn/rotary.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { LanguageModel, ModelFacts } from "../family.ts";
import { decoderSharding } from "./sharding.ts";

/** A pre-norm decoder with rotary positions and a gated MLP: Llama and those that follow it. */
export interface DecoderConfig {
  readonly vocabularySize: number;
  readonly size: number;
  readonly intermediate: number;
  readonly layers: number;
  readonly heads: number;
  readonly groups: number;
  readonly headSize: number;
  readonly normEpsilon: number;
  readonly maximumPositions: number;
  readonly theta: number;
  readonly scaling: RopeScaling;
  /** The window of each layer; 0 for none. */
  readonly windowOf: (layer: number) => number;
  readonly attentionBias: boolean;
  readonly outputBias: boolean;
  readonly headNorms: boolean;
  readonly tied: boolean;
  /** Standard deviation of the initial weights. */
  readonly deviation: number;
}

class DecoderLayer {
  readonly #inputNorm: RmsNorm;
  readonly #attention: SelfAttention;
  readonly #mlpNorm: RmsNorm;
  readonly #mlp: GatedMlp;

  constructor(space: ParameterSpace, config: DecoderConfig, layer: number) {
    const { size, heads, groups, headSize, deviation, normEpsilon: epsilon } = config;
    this.#inputNorm = new RmsNorm(space.child("input_layernorm"), { size, epsilon });
    this.#attention = new SelfAttention(space.child("self_attn"), {
      size,
      heads,
      groups,
      headSize,
      bias: config.attentionBias,
      outputBias: config.outputBias,
      headNormEpsilon: config.headNorms ? epsilon : undefined,
      window: config.windowOf(layer),
      deviation,
      outputDeviation: deviation,
    });
    this.#mlpNorm = new RmsNorm(space.child("post_attention_layernorm"), { size, epsilon });
    this.#mlp = new GatedMlp(space.child("mlp"), { size, intermediate: config.intermediate, deviation });
  }

  forward(
    x: Tensor,
    layer: number,
    positions: Tensor,
    frequencies: Tensor,
    context: AttentionContext,
  ): Tensor {
    const attended = this.#attention.forward(
      this.#inputNorm.forward(x),
      layer,
      positions,
      frequencies,
      context,
    );
    const mixed = x.add(attended);
    return mixed.add(withScope("mlp", () => this.#mlp.forward(this.#mlpNorm.forward(mixed))));
  }
}

/** Builds a decoder under Hugging Face's parameter names. */
export class Decoder implements LanguageModel {
  readonly facts: ModelFacts;
  readonly outputWeight: Tensor;
  readonly sharding: ShardingTable;
  readonly #config: DecoderConfig;
  readonly #embedding: Embedding;
  readonly #layers: readonly DecoderLayer[];
  readonly #norm: RmsNorm;

  constructor(space: ParameterSpace, config: DecoderConfig) {
    const { vocabularySize, size, layers, deviation } = config;
    this.#config = config;
    this.facts = config;
    this.sharding = decoderSharding(config);
    const body = space.child("model");
    this.#embedding = new Embedding(body.child("embed_tokens"), { count: vocabularySize, size, deviation });
    this.#layers = Array.from(
      { length: layers },
      (_, layer) => new DecoderLayer(body.child("layers").child(layer), config, layer),
    );
    this.#norm = new RmsNorm(body.child("norm"), { size, epsilon: config.normEpsilon });
    this.outputWeight = config.tied
      ? this.#embedding.weight
      : new Linear(space.child("lm_head"), { inputs: size, outputs: vocabularySize, deviation }).weight;
  }

  hidden(tokens: Tensor, positions: Tensor, context: AttentionContext, dtype: DType): Tensor {
    return withScope("model", () => {
      const { headSize, theta, scaling } = this.#config;
      const frequencies = rotaryTable(headSize, theta, scaling);
      let x = withScope("embed_tokens", () => this.#embedding.forward(tokens, dtype));
      this.#layers.forEach((layer, index) => {
        x = inBlock(index, () =>
          withScope(`layers.${index}`, () => layer.forward(x, index, positions, frequencies, context)),
        );
      });
      return this.#norm.forward(x);
    });
  }
}
