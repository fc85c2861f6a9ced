export { type PackedBatch, packSequences } from "./batch.ts";
export { writeCompressed } from "./compressed/save.ts";
export { familyOf, modelFamilies } from "./families.ts";
export type { ConfigJson, LanguageModel, ModelFacts, ModelFamily } from "./family.ts";
export { CachedDecoder, type GenerateOptions, generate } from "./generate.ts";
export { isGgufPath } from "./gguf/load.ts";
export { saveGguf } from "./gguf/save.ts";
export { tokenizerEntries } from "./gguf/tokenizer_entries.ts";
export {
  type LoadOptions,
  loadModelWith,
  type Precision,
  readModelConfig,
  readWeights,
  weightBytes,
} from "./load.ts";
export { compileOptionsOf, Model, type ModelParts, packedLeaves, projectLogits } from "./model.ts";
export type { Quantization } from "./quantization.ts";
export { greedy, Sampler, type SamplingOptions } from "./sampling.ts";
export { saveModelFolder } from "./save.ts";
export {
  type ModelSource,
  openModelSource,
  openUniversalSource,
  readGenerationConfig,
  type UniversalSource,
} from "./source.ts";
export { loadModelTokenizer } from "./tokenizer.ts";
