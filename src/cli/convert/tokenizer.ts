import { FileFormatError } from "../../base/errors.ts";
import type { Tokenizer } from "../../data/index.ts";
import { loadModelTokenizer } from "../../models/index.ts";

/** The tokenizer of a model; undefined where it has none. */
export async function openTokenizer(path: string): Promise<Tokenizer | undefined> {
  try {
    return await loadModelTokenizer(path);
  } catch (error) {
    if (error instanceof FileFormatError && error.code === "missing_tokenizer") return undefined;
    throw error;
  }
}
