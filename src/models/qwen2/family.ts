import { readDecoderConfig, upperWindows } from "../decoder/config.ts";
import { Decoder } from "../decoder/model.ts";
import type { ModelFamily } from "../family.ts";

/** Qwen2 (Yang et al., arXiv 2407.10671): biases on query, key and value. */
export const qwen2: ModelFamily = {
  type: "qwen2",
  architecture: "Qwen2ForCausalLM",
  build: (config, space, where) => {
    const traits = {
      defaultTheta: 10_000,
      defaultEpsilon: 1e-6,
      headNorms: false,
      attentionBias: true,
      windows: upperWindows,
    } as const;
    return new Decoder(space, readDecoderConfig(config, traits, where));
  },
};
