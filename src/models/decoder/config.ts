import type { ConfigJson } from "../family.ts";
import { ConfigReader } from "../read_config.ts";
import type { DecoderConfig } from "./model.ts";

/** What sets a family of decoders apart. */
export interface DecoderTraits {
  readonly defaultTheta: number;
  readonly defaultEpsilon: number;
  readonly headNorms: boolean;
  /** Whether the query, key and value projections have biases; "config": as `attention_bias` says. */
  readonly attentionBias: boolean | "config";
  /** Reads the window of each layer. */
  readonly windows: (reader: ConfigReader, layers: number) => (layer: number) => number;
}

/** No layer has a window. */
export const noWindows: DecoderTraits["windows"] = () => () => 0;

/** `sliding_window` holds for every layer; null or absent means none. */
export const oneWindow: DecoderTraits["windows"] = (reader) => {
  const window = reader.has("sliding_window") ? reader.count("sliding_window") : 0;
  return () => window;
};

/** With `use_sliding_window`, layers from `max_window_layers` on have the window (Qwen2, Qwen3). */
export const upperWindows: DecoderTraits["windows"] = (reader, layers) => {
  if (!reader.flag("use_sliding_window", false) || !reader.has("sliding_window")) return () => 0;
  const window = reader.count("sliding_window");
  const first = reader.count("max_window_layers", layers);
  return (layer) => (layer >= first ? window : 0);
};

/**
 * A decoder's config from Hugging Face's keys.
 * @throws ConfigError listing every key that is missing or wrong.
 */
export function readDecoderConfig(config: ConfigJson, traits: DecoderTraits, where: string): DecoderConfig {
  const reader = new ConfigReader(config, where);
  const size = reader.count("hidden_size");
  const heads = reader.count("num_attention_heads");
  const groups = reader.count("num_key_value_heads", heads);
  const layers = reader.count("num_hidden_layers");
  const { theta, scaling } = reader.rotary(traits.defaultTheta);
  reader.choice("hidden_act", ["silu"], "silu");
  if (!reader.has("head_dim") && size % heads !== 0) {
    reader.problem(`hidden_size ${size} does not divide among num_attention_heads ${heads}`);
  }
  if (heads % groups !== 0) {
    reader.problem(`num_attention_heads ${heads} is not a multiple of num_key_value_heads ${groups}`);
  }
  const configured = traits.attentionBias === "config";
  const attentionBias = configured ? reader.flag("attention_bias", false) : traits.attentionBias === true;
  const headSize = reader.count("head_dim", Math.max(1, Math.floor(size / heads)));
  if (scaling.type === "factors" && scaling.factors.length !== headSize / 2) {
    reader.problem(`rope_scaling: expected ${headSize / 2} factors, received ${scaling.factors.length}`);
  }
  const result: DecoderConfig = {
    vocabularySize: reader.count("vocab_size"),
    size,
    intermediate: reader.count("intermediate_size"),
    layers,
    heads,
    groups,
    headSize,
    normEpsilon: reader.number("rms_norm_eps", traits.defaultEpsilon),
    maximumPositions: reader.count("max_position_embeddings", 2048),
    theta,
    scaling,
    windowOf: traits.windows(reader, layers),
    attentionBias,
    outputBias: configured && attentionBias,
    headNorms: traits.headNorms,
    tied: reader.flag("tie_word_embeddings", false),
    deviation: reader.number("initializer_range", 0.02),
  };
  reader.finish();
  return result;
}
