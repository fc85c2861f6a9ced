import { noWindows, readDecoderConfig } from "../decoder/config.ts";
import { Decoder } from "../decoder/model.ts";
import type { ModelFamily } from "../family.ts";

/** Llama 2 and 3 (Touvron et al., arXiv 2307.09288; Llama Team, arXiv 2407.21783). */
export const llama: ModelFamily = {
  type: "llama",
  architecture: "LlamaForCausalLM",
  build: (config, space, where) => {
    const traits = {
      defaultTheta: 10_000,
      defaultEpsilon: 1e-6,
      headNorms: false,
      attentionBias: "config",
      windows: noWindows,
    } as const;
    return new Decoder(space, readDecoderConfig(config, traits, where));
  },
};
