import { readDecoderConfig, upperWindows } from "../decoder/config.ts";
import { Decoder } from "../decoder/model.ts";
import type { ModelFamily } from "../family.ts";

/** Qwen3 (Yang et al., arXiv 2505.09388): RMS norms on every query and key head. */
export const qwen3: ModelFamily = {
  type: "qwen3",
  architecture: "Qwen3ForCausalLM",
  build: (config, space, where) => {
    const traits = {
      defaultTheta: 10_000,
      defaultEpsilon: 1e-6,
      headNorms: true,
      attentionBias: "config",
      windows: upperWindows,
    } as const;
    return new Decoder(space, readDecoderConfig(config, traits, where));
  },
};
