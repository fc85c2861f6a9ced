import { openGguf } from "../checkpoint/gguf/index.ts";
import { createTokenizerFrom, loadTokenizer, type Tokenizer } from "../data/index.ts";
import { isGgufPath } from "./gguf/load.ts";
import { tokenizerOfGguf } from "./gguf/tokenizer.ts";

/**
 * Loads the tokenizer of a model, with its chat template: of a Hugging Face folder, or of a `.gguf` file.
 * @throws FileFormatError; its code is `missing_tokenizer` where the model has none.
 */
export async function loadModelTokenizer(path: string): Promise<Tokenizer> {
  if (!isGgufPath(path)) return await loadTokenizer(path);
  await using file = await openGguf(path);
  const { definition, config } = tokenizerOfGguf(file);
  return createTokenizerFrom(definition, config, { path, configPath: path });
}
