import { ConfigError } from "../base/errors.ts";
import { constant } from "../graph/build.ts";
import { Tensor } from "../tensor/tensor.ts";

/** How rotary frequencies are stretched beyond the length of training. */
export type RopeScaling =
  | { readonly type: "none" }
  /** All frequencies divided by `factor` (Chen et al., "Position Interpolation", arXiv 2306.15595). */
  | { readonly type: "linear"; readonly factor: number }
  /** Llama 3's: low frequencies divided, high ones kept, a smooth blend between (arXiv 2407.21783). */
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalPositions: number;
    }
  /** Each frequency divided by a factor of its own (LongRoPE, Ding et al., arXiv 2402.13753). */
  | { readonly type: "factors"; readonly factors: readonly number[] };

/** The angle by which each pair turns a position: theta^(-2i / size), scaled. */
export function rotaryFrequencies(size: number, theta: number, scaling: RopeScaling): number[] {
  if (size % 2 !== 0) {
    throw new ConfigError("odd_head_size", "rotary embeddings turn pairs: the head size must be even", {
      received: String(size),
    });
  }
  const plain = Array.from({ length: size / 2 }, (_, pair) => theta ** ((-2 * pair) / size));
  switch (scaling.type) {
    case "none":
      return plain;
    case "linear":
      return plain.map((frequency) => frequency / scaling.factor);
    case "llama3":
      return plain.map((frequency) => scaleLlama3(frequency, scaling));
    case "factors":
      return plain.map((frequency, pair) => frequency / scaling.factors[pair]!);
  }
}

function scaleLlama3(frequency: number, scaling: Extract<RopeScaling, { type: "llama3" }>): number {
  const { factor, lowFrequencyFactor, highFrequencyFactor, originalPositions } = scaling;
  const turns = (originalPositions * frequency) / (2 * Math.PI);
  if (turns > highFrequencyFactor) return frequency;
  if (turns < lowFrequencyFactor) return frequency / factor;
  const smooth = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
  return (1 - smooth) * (frequency / factor) + smooth * frequency;
}

/** The frequencies as a tensor for `rope`. */
export function rotaryTable(size: number, theta: number, scaling: RopeScaling): Tensor {
  const frequencies = rotaryFrequencies(size, theta, scaling);
  return new Tensor(constant(frequencies, [frequencies.length]));
}
