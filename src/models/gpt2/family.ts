import type { ConfigJson, ModelFamily } from "../family.ts";
import { ConfigReader } from "../read_config.ts";
import { Gpt2, type Gpt2Config } from "./model.ts";

function readConfig(config: ConfigJson, where: string): Gpt2Config {
  const reader = new ConfigReader(config, where);
  const size = reader.count("n_embd", 768);
  const heads = reader.count("n_head", 12);
  if (size % heads !== 0) reader.problem(`n_embd ${size} does not divide among n_head ${heads}`);
  const result: Gpt2Config = {
    vocabularySize: reader.count("vocab_size", 50257),
    size,
    heads,
    layers: reader.count("n_layer", 12),
    intermediate: reader.count("n_inner", 4 * size),
    maximumPositions: reader.count("n_positions", 1024),
    epsilon: reader.number("layer_norm_epsilon", 1e-5),
    activation: reader.choice("activation_function", ["gelu_new", "gelu", "relu"], "gelu_new"),
    tied: reader.flag("tie_word_embeddings", true),
    deviation: reader.number("initializer_range", 0.02),
  };
  reader.finish();
  return result;
}

/** GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019). */
export const gpt2: ModelFamily = {
  type: "gpt2",
  architecture: "GPT2LMHeadModel",
  build: (config, space, where) => new Gpt2(space, readConfig(config, where)),
  // The first checkpoints leave the prefix out.
  alternativeName: (name) =>
    name.startsWith("transformer.") ? name.slice("transformer.".length) : undefined,
  transposedWeights: /\.(c_attn|c_proj|c_fc)\.weight$/,
  staysFloat: /\.wpe\.weight$/,
  ignoredNames: [/\.attn\.(bias|masked_bias)$/],
};
