export {
  type AttentionContext,
  packedContext,
  SelfAttention,
  type SelfAttentionOptions,
} from "./attention.ts";
export { Embedding, GatedMlp, LayerNorm, Linear, LinearTransposed, RmsNorm } from "./layers.ts";
export { type Initializer, type Parameter, ParameterSpace, type ParameterTable } from "./parameters.ts";
export { type RopeScaling, rotaryFrequencies, rotaryTable } from "./rotary.ts";
export { dynamicSwitch, replicate, shard, split } from "./sharding.ts";
