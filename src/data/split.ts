import { DataError } from "../base/errors.ts";
import { PhiloxStream } from "../base/random.ts";
import type { TokenStore } from "./token_store.ts";

/** Parts of a token store, each a document or a contiguous piece of one. */
export interface TokenSpans {
  /** [spans]: index in the store of the first token. */
  readonly starts: Float64Array;
  /** [spans]: index after the last token. */
  readonly ends: Float64Array;
  /** [spans]: tokens before this index are a prompt, on which no loss is taken. */
  readonly promptEnds: Float64Array;
}

/** The stream of random numbers that picks documents for validation. */
const splitStream = 0x73706c74;

/** Every document of a store. */
export function allSpans(store: TokenStore): TokenSpans {
  return pickSpans(
    store,
    Array.from({ length: store.documentStarts.length - 1 }, (_, document) => document),
  );
}

/** Tokens in spans. */
export function spannedTokens(spans: TokenSpans): number {
  return spans.starts.reduce((total, start, span) => total + spans.ends[span]! - start, 0);
}

/**
 * Sets about `fraction` of the tokens apart for validation, the same ones for the same seed. Where
 * there are enough documents these are whole documents picked at random; where documents are too few
 * or too long for that, it is the tail of the tokens.
 * @throws DataError where either part would be empty.
 */
export function splitSpans(
  store: TokenStore,
  fraction: number,
  seed: number,
): { train: TokenSpans; validation: TokenSpans } {
  const wanted = Math.round(store.tokenCount * fraction);
  if (wanted < 1 || wanted >= store.tokenCount) {
    throw new DataError("too_little_data", "there is too little data to set some apart for validation", {
      expected: `a fraction of at least one token, and not all, of ${store.tokenCount}`,
      received: `${fraction}`,
    });
  }
  const isValidation = pickDocuments(store, wanted, seed);
  if (isValidation === undefined) return splitTail(store, store.tokenCount - wanted);
  const documents = Array.from(isValidation.keys());
  return {
    train: pickSpans(
      store,
      documents.filter((document) => isValidation[document] === 0),
    ),
    validation: pickSpans(
      store,
      documents.filter((document) => isValidation[document] === 1),
    ),
  };
}

/** Marks random documents until they hold about `wanted` tokens; undefined where none come near it. */
function pickDocuments(store: TokenStore, wanted: number, seed: number): Uint8Array | undefined {
  const documentCount = store.documentStarts.length - 1;
  const isValidation = new Uint8Array(documentCount);
  let picked = 0;
  for (const document of shuffled(documentCount, seed, splitStream)) {
    const length = store.documentStarts[document + 1]! - store.documentStarts[document]!;
    if (length === 0 || picked + length > 1.25 * wanted) continue;
    isValidation[document] = 1;
    picked += length;
    if (picked >= wanted) break;
  }
  return picked >= wanted / 2 && picked < store.tokenCount ? isValidation : undefined;
}

function splitTail(store: TokenStore, cut: number): { train: TokenSpans; validation: TokenSpans } {
  const all = allSpans(store);
  const firstAfter = all.ends.findIndex((end) => end > cut);
  const head = firstAfter + (all.starts[firstAfter]! < cut ? 1 : 0);
  const train = sliceSpans(all, 0, head);
  const validation = sliceSpans(all, firstAfter, all.starts.length);
  if (head > firstAfter) train.ends[firstAfter] = cut;
  validation.starts[0] = Math.max(cut, validation.starts[0]!);
  return { train, validation };
}

function sliceSpans(spans: TokenSpans, from: number, to: number): TokenSpans {
  return {
    starts: spans.starts.slice(from, to),
    ends: spans.ends.slice(from, to),
    promptEnds: spans.promptEnds.slice(from, to),
  };
}

function pickSpans(store: TokenStore, documents: readonly number[]): TokenSpans {
  const starts = Float64Array.from(documents, (document) => store.documentStarts[document]!);
  return {
    starts,
    ends: Float64Array.from(documents, (document) => store.documentStarts[document + 1]!),
    promptEnds: Float64Array.from(
      documents,
      (document, span) => starts[span]! + (store.promptLengths?.[document] ?? 0),
    ),
  };
}

/** The numbers below `count` in a random order that depends on the seed and stream alone (Fisher-Yates). */
export function shuffled(count: number, seed: number, stream: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, index) => index);
  const random = new PhiloxStream(seed, stream);
  for (let last = count - 1; last > 0; last--) {
    const other = random.nextBelow(last + 1);
    const kept = order[last]!;
    order[last] = order[other]!;
    order[other] = kept;
  }
  return order;
}
