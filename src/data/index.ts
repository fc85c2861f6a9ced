/**
 * The data room: documents from files and packages, tokenizers (loaded and trained), tokenised data
 * cached on disk, and packed batches that resume exactly.
 */
export type { MicroBatch } from "./batch.ts";
export { type BpeTrainingOptions, trainTokenizer } from "./bpe_trainer.ts";
export { byteOfCharacter } from "./byte_level.ts";
export { type Dataset, type DatasetOptions, openDataset, openTokens } from "./dataset.ts";
export type { DataDocument, DataSource } from "./document.ts";
export { DataLoader, type LoaderOptions, type LoaderState } from "./loader.ts";
export type { PackingMode } from "./packing.ts";
export { type DataFormat, documentsOf, openSources, type SourceOptions } from "./sources.ts";
export { allSpans, splitSpans, type TokenSpans } from "./split.ts";
export { StreamDecoder } from "./stream_decoder.ts";
export { collectTokens, type TokenisedDocument, type TokenStore } from "./token_store.ts";
export { type TokenizeProgress, tokenizeDocument, tokenizeDocuments } from "./tokenize.ts";
export {
  checkTokenIds,
  checkVocabulary,
  createTokenizer,
  createTokenizerFrom,
  type DecodeOptions,
  type EncodeOptions,
  loadTokenizer,
  saveTokenizer,
  type Tokenizer,
} from "./tokenizer.ts";
