import { createHash } from "node:crypto";
import { ConfigError } from "../base/errors.ts";
import { DataLoader, type LoaderOptions } from "./loader.ts";
import type { PackingMode } from "./packing.ts";
import { type DataFormat, documentsOf, openSources, type SourceOptions } from "./sources.ts";
import { allSpans, splitSpans, type TokenSpans } from "./split.ts";
import { cachedTokens } from "./token_cache.ts";
import { collectTokens, type TokenStore } from "./token_store.ts";
import { type TokenizeProgress, tokenizeDocuments } from "./tokenize.ts";
import { checkVocabulary, type Tokenizer } from "./tokenizer.ts";

/** Everything that decides which batches a run sees. The config's `data` section maps onto it. */
export interface DatasetOptions {
  /** Training data: files, folders, globs, or `package:NAME`. */
  readonly train: string | readonly string[];
  /**
   * Validation data: paths as for `train`, or the fraction of the training data's tokens to set apart,
   * above 0 and below 1. Without it, or with 0, there is no validation.
   */
  readonly validation?: string | readonly string[] | number;
  /** The format of all files (default: by extension). */
  readonly format?: DataFormat;
  /** The field or column that holds the text or an array of token ids (default `text`). */
  readonly textField?: string;
  /** The field or column that is read but not learnt; together with `completionField`. */
  readonly promptField?: string;
  /** The field or column that follows the prompt and is learnt. */
  readonly completionField?: string;
  /** Splits text files into documents (default: a file is a document). */
  readonly documentSeparator?: string;
  /** Turns text into ids. */
  readonly tokenizer: Tokenizer;
  /** The model's vocabulary, which the tokenizer's must not exceed. */
  readonly modelVocabularySize?: number;
  /** Tokens in a row of a batch. */
  readonly sequenceLength: number;
  /** Rows in a micro-batch of one rank. */
  readonly batchSize: number;
  /** `rows` (default) fills every row; `best_fit` keeps documents whole that are shorter than a row. */
  readonly packing?: PackingMode;
  /** Whether attention stops at the ends of documents within a row (default true). */
  readonly documentBoundaries?: boolean;
  /** Whether training takes the rows of each epoch in a random order (default true). */
  readonly shuffle?: boolean;
  /** Decides the split and the order (default 0). */
  readonly seed?: number;
  /** Which data-parallel rank this is (default 0). */
  readonly rank?: number;
  /** How many data-parallel ranks there are (default 1). */
  readonly worldSize?: number;
  /** The folder for tokenised data; without one it is held in memory only. */
  readonly cacheDirectory?: string;
  /** Called now and then while text is tokenised. */
  readonly onProgress?: (progress: TokenizeProgress) => void;
  /** Called with the reason where a damaged cache is made anew. */
  readonly onCacheRebuild?: (reason: string) => void;
}

/** Data that is ready to train on. */
export interface Dataset {
  readonly train: DataLoader;
  readonly validation: DataLoader | undefined;
  /** Closes the files behind the loaders. */
  close(): Promise<void>;
}

/**
 * Opens data for training: finds the sources, tokenises them (or finds them tokenised in the cache),
 * sets validation data apart, and packs both into rows.
 * @throws DataError where data is missing, empty, malformed or too little, or the tokenizer does not fit
 * the model; ConfigError where options contradict each other.
 */
export async function openDataset(options: DatasetOptions): Promise<Dataset> {
  if (options.modelVocabularySize !== undefined) {
    checkVocabulary(options.tokenizer, options.modelVocabularySize);
  }
  const validation = typeof options.validation === "number" ? undefined : options.validation;
  const fraction = typeof options.validation === "number" ? options.validation : 0;
  if (!(fraction >= 0 && fraction < 1)) {
    throw new ConfigError("bad_data_option", "the validation fraction cannot be used", {
      expected: "a number from 0 to below 1, or the paths of validation data",
      received: String(fraction),
    });
  }
  const stores: TokenStore[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(stores.map((store) => store.close()));
  };
  try {
    const trainStore = await openTokens(options.train, options);
    stores.push(trainStore);
    const split: { train: TokenSpans; validation?: TokenSpans } =
      fraction > 0 ? splitSpans(trainStore, fraction, options.seed ?? 0) : { train: allSpans(trainStore) };
    const train = makeLoader("training data", trainStore, split.train, options.shuffle ?? true, options);
    if (split.validation !== undefined) {
      const loader = makeLoader("validation data", trainStore, split.validation, false, options);
      return { train, validation: loader, close };
    }
    if (validation === undefined) return { train, validation: undefined, close };
    const validationStore = await openTokens(validation, options);
    stores.push(validationStore);
    const spans = allSpans(validationStore);
    return {
      train,
      validation: makeLoader("validation data", validationStore, spans, false, options),
      close,
    };
  } catch (cause) {
    await close();
    throw cause;
  }
}

/**
 * The tokens of the documents that paths name, from the cache where there is one.
 * @throws DataError where data is missing, empty or malformed.
 */
export async function openTokens(
  paths: string | readonly string[],
  options: Pick<DatasetOptions, "tokenizer" | "cacheDirectory" | "onProgress" | "onCacheRebuild"> &
    SourceOptions,
): Promise<TokenStore> {
  const { tokenizer } = options;
  const sources = await openSources(paths, options);
  const madeFrom = createHash("sha256")
    .update(JSON.stringify([tokenizer.identity, sources.map((source) => source.identity)]))
    .digest("hex");
  const documents = () => tokenizeDocuments(documentsOf(sources), tokenizer, options.onProgress);
  if (options.cacheDirectory === undefined) {
    return collectTokens(documents(), tokenizer.vocabularySize);
  }
  return cachedTokens(
    {
      directory: options.cacheDirectory,
      name: JSON.stringify([tokenizer.identity, sources.map((source) => source.name)]),
      madeFrom,
      vocabularySize: tokenizer.vocabularySize,
      ...(options.onCacheRebuild === undefined ? {} : { onRebuild: options.onCacheRebuild }),
    },
    documents,
  );
}

function makeLoader(
  name: string,
  store: TokenStore,
  spans: TokenSpans,
  shuffle: boolean,
  options: DatasetOptions,
): DataLoader {
  const loaderOptions: LoaderOptions = {
    name,
    store,
    spans,
    shuffle,
    sequenceLength: options.sequenceLength,
    batchSize: options.batchSize,
    packing: options.packing ?? "rows",
    documentBoundaries: options.documentBoundaries ?? true,
    seed: options.seed ?? 0,
    rank: options.rank ?? 0,
    worldSize: options.worldSize ?? 1,
  };
  return new DataLoader(loaderOptions);
}
