import { DataError } from "../base/errors.ts";
import type { DataDocument } from "./document.ts";
import type { TokenisedDocument } from "./token_store.ts";
import { checkTokenIds, type Tokenizer } from "./tokenizer.ts";

/** How far the tokenising of documents has come. */
export interface TokenizeProgress {
  readonly documents: number;
  readonly tokens: number;
}

/** Milliseconds of work after which other events get their turn. */
const turn = 20;

/**
 * Tokenises documents one by one: the tokens that the tokenizer puts around a text, and its end token
 * after it. Where a document has a prompt, prompt and text are tokenised as one text, and the tokens
 * that the prompt alone would begin with count as prompt.
 * @throws DataError naming a document with ids outside the vocabulary, or that the tokenizer has no
 * tokens for.
 */
export async function* tokenizeDocuments(
  documents: AsyncIterable<DataDocument>,
  tokenizer: Tokenizer,
  onProgress?: (progress: TokenizeProgress) => void,
): AsyncGenerator<TokenisedDocument> {
  let documentCount = 0;
  let tokenCount = 0;
  let turnStart = performance.now();
  for await (const document of documents) {
    const tokenised = tokenizeDocument(document, tokenizer);
    documentCount++;
    tokenCount += tokenised.ids.length;
    yield tokenised;
    if (performance.now() - turnStart > turn) {
      onProgress?.({ documents: documentCount, tokens: tokenCount });
      await new Promise((resolve) => setImmediate(resolve));
      turnStart = performance.now();
    }
  }
  onProgress?.({ documents: documentCount, tokens: tokenCount });
}

/** Tokenises one document: see `tokenizeDocuments`. */
export function tokenizeDocument(document: DataDocument, tokenizer: Tokenizer): TokenisedDocument {
  if (typeof document.content !== "string") {
    checkTokenIds(document.content, tokenizer.vocabularySize, document.name);
    return { ids: document.content, promptLength: 0 };
  }
  const text = (document.prompt ?? "") + document.content;
  const ids = encode(tokenizer, text, document.name);
  if (text !== "" && ids.length === encode(tokenizer, "", document.name).length) {
    throw new DataError("no_tokens", "the tokenizer has no token for anything in a document", {
      where: document.name,
      received: text.length > 60 ? `${text.slice(0, 60)}…` : text,
      hint: "use a tokenizer made for this language or kind of text",
    });
  }
  checkTokenIds(ids, tokenizer.vocabularySize, document.name);
  let promptLength = 0;
  if (document.prompt !== undefined) {
    const prompt = encode(tokenizer, document.prompt, document.name);
    while (promptLength < prompt.length && prompt[promptLength] === ids[promptLength]) promptLength++;
  }
  if (
    tokenizer.endToken !== undefined &&
    (ids.at(-1) !== tokenizer.endToken || ids.length === promptLength)
  ) {
    ids.push(tokenizer.endToken);
  }
  return { ids, promptLength };
}

function encode(tokenizer: Tokenizer, text: string, name: string): number[] {
  try {
    return tokenizer.encode(text);
  } catch (cause) {
    if (!(cause instanceof DataError)) throw cause;
    throw new DataError(cause.code, "the tokenizer cannot write a document as ids", {
      ...cause.details,
      where: name,
      cause,
    });
  }
}
