import { oneWindow, readDecoderConfig } from "../decoder/config.ts";
import { Decoder } from "../decoder/model.ts";
import type { ModelFamily } from "../family.ts";

/** Mistral (Jiang et al., arXiv 2310.06825): Llama with a sliding window. */
export const mistral: ModelFamily = {
  type: "mistral",
  architecture: "MistralForCausalLM",
  build: (config, space, where) => {
    const traits = {
      defaultTheta: 10_000,
      defaultEpsilon: 1e-6,
      headNorms: false,
      attentionBias: false,
      windows: oneWindow,
    } as const;
    return new Decoder(space, readDecoderConfig(config, traits, where));
  },
};
