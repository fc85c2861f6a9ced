import type { DType } from "../../base/dtype.ts";
import type { ShardingTable } from "../../graph/annotations.ts";
import { inBlock, withScope } from "../../graph/scope.ts";
import type { AttentionContext } from "../../nn/attention.ts";
import { Embedding, LayerNorm, Linear, LinearTransposed } from "../../nn/layers.ts";
import type { ParameterSpace } from "../../nn/parameters.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { LanguageModel, ModelFacts } from "../family.ts";
import { gpt2Sharding } from "./sharding.ts";

/** The shape of a GPT-2 model. */
export interface Gpt2Config {
  readonly vocabularySize: number;
  readonly size: number;
  readonly heads: number;
  readonly layers: number;
  readonly intermediate: number;
  readonly maximumPositions: number;
  readonly epsilon: number;
  readonly activation: "gelu_new" | "gelu" | "relu";
  readonly tied: boolean;
  readonly deviation: number;
}

class Gpt2Block {
  readonly #config: Gpt2Config;
  readonly #attentionNorm: LayerNorm;
  readonly #queryKeyValue: LinearTransposed;
  readonly #projection: LinearTransposed;
  readonly #mlpNorm: LayerNorm;
  readonly #up: LinearTransposed;
  readonly #down: LinearTransposed;

  constructor(space: ParameterSpace, config: Gpt2Config) {
    const { size, intermediate, epsilon, deviation, layers } = config;
    // Residual projections start smaller, by the number of residual additions (GPT-2's report, section 2.3).
    const residual = deviation / Math.sqrt(2 * layers);
    this.#config = config;
    this.#attentionNorm = new LayerNorm(space.child("ln_1"), { size, epsilon });
    const attention = space.child("attn");
    this.#queryKeyValue = new LinearTransposed(attention.child("c_attn"), {
      inputs: size,
      outputs: 3 * size,
      deviation,
    });
    this.#projection = new LinearTransposed(attention.child("c_proj"), {
      inputs: size,
      outputs: size,
      deviation: residual,
    });
    this.#mlpNorm = new LayerNorm(space.child("ln_2"), { size, epsilon });
    const mlp = space.child("mlp");
    this.#up = new LinearTransposed(mlp.child("c_fc"), { inputs: size, outputs: intermediate, deviation });
    this.#down = new LinearTransposed(mlp.child("c_proj"), {
      inputs: intermediate,
      outputs: size,
      deviation: residual,
    });
  }

  forward(x: Tensor, layer: number, context: AttentionContext): Tensor {
    const mixed = x.add(
      withScope("attn", () => this.#attend(this.#attentionNorm.forward(x), layer, context)),
    );
    return mixed.add(
      withScope("mlp", () =>
        this.#down.forward(this.#activate(this.#up.forward(this.#mlpNorm.forward(mixed)))),
      ),
    );
  }

  #attend(x: Tensor, layer: number, context: AttentionContext): Tensor {
    const { size, heads } = this.#config;
    const tokens = x.shape[0]!;
    const headSize = size / heads;
    const joined = this.#queryKeyValue.forward(x);
    const part = (index: number): Tensor =>
      joined.slice([0, index * size], [tokens, size]).reshape([tokens, heads, headSize]);
    const options = { scale: 1 / Math.sqrt(headSize), window: 0 };
    const mixed = context.attend(layer, part(0), part(1), part(2), options);
    return this.#projection.forward(mixed.reshape([tokens, size]));
  }

  #activate(x: Tensor): Tensor {
    switch (this.#config.activation) {
      case "gelu_new":
        return x.geluTanh();
      case "gelu":
        return x.gelu();
      case "relu":
        return x.relu();
    }
  }
}

/** A decoder with learned positions, layer norms and biases throughout. */
export class Gpt2 implements LanguageModel {
  readonly facts: ModelFacts;
  readonly outputWeight: Tensor;
  readonly sharding: ShardingTable;
  readonly #tokens: Embedding;
  readonly #positions: Embedding;
  readonly #blocks: readonly Gpt2Block[];
  readonly #norm: LayerNorm;

  constructor(space: ParameterSpace, config: Gpt2Config) {
    const { vocabularySize, maximumPositions, layers, heads, size, deviation } = config;
    this.facts = { vocabularySize, maximumPositions, layers, heads, groups: heads, headSize: size / heads };
    this.sharding = gpt2Sharding({ heads });
    const body = space.child("transformer");
    this.#tokens = new Embedding(body.child("wte"), { count: vocabularySize, size, deviation });
    this.#positions = new Embedding(body.child("wpe"), {
      count: maximumPositions,
      size,
      deviation: deviation / 2,
    });
    this.#blocks = Array.from(
      { length: layers },
      (_, index) => new Gpt2Block(body.child("h").child(index), config),
    );
    this.#norm = new LayerNorm(body.child("ln_f"), { size, epsilon: config.epsilon });
    this.outputWeight = config.tied
      ? this.#tokens.weight
      : new Linear(space.child("lm_head"), { inputs: size, outputs: vocabularySize, deviation }).weight;
  }

  hidden(tokens: Tensor, positions: Tensor, context: AttentionContext, dtype: DType): Tensor {
    return withScope("transformer", () => {
      let x = this.#tokens.forward(tokens, dtype).add(this.#positions.forward(positions, dtype));
      this.#blocks.forEach((block, index) => {
        x = inBlock(index, () => withScope(`h.${index}`, () => block.forward(x, index, context)));
      });
      return this.#norm.forward(x);
    });
  }
}
