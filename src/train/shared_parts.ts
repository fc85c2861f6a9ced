import type { Dataset, Tokenizer } from "../data/index.ts";
import type { BatchSizes, TrainConfig } from "./config/index.ts";
import { prepareData, prepareTokenizer } from "./setup.ts";

/** What the ranks of one process share: each part is made when it is first asked for. */
export interface SharedParts {
  tokenizer(): Promise<Tokenizer>;
  dataset(tokenizer: Tokenizer, vocabularySize: number): Promise<Dataset>;
  /** Closes what was opened. */
  close(): Promise<void>;
}

/**
 * What the ranks of this process share of a config.
 * @param options.leads whether rank 0 is among them, which trains the tokenizer for all
 */
export function shareParts(
  config: TrainConfig,
  batch: BatchSizes,
  options: { readonly resumes: boolean; readonly leads: boolean; readonly note: (line: string) => void },
): SharedParts {
  const { resumes, leads, note } = options;
  let tokenizer: Promise<Tokenizer> | undefined;
  let dataset: Promise<Dataset> | undefined;
  return {
    tokenizer: () => {
      tokenizer ??= prepareTokenizer(config, resumes || !leads, note);
      return tokenizer;
    },
    dataset: (made, vocabularySize) => {
      dataset ??= prepareData(config, batch, made, vocabularySize, note);
      return dataset;
    },
    close: async () => {
      const opened = await dataset?.catch(() => undefined);
      await opened?.close();
    },
  };
}
