import { ConfigError, DataError } from "../base/errors.ts";
import { byteAlphabet, byteLevelText, preTokenize } from "./byte_level.ts";
import { PairHeap } from "./pair_heap.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

/** How a byte-level BPE vocabulary is trained. */
export interface BpeTrainingOptions {
  /** Tokens wanted in all: special tokens, the 256 bytes, and merges. A small text may give fewer. */
  readonly vocabularySize: number;
  /** The token put before every text (default `<|begin_of_text|>`). */
  readonly beginToken?: string;
  /** The token that ends every text (default `<|end_of_text|>`). */
  readonly endToken?: string;
  /** Further special tokens, never cut up and never produced by merges. */
  readonly specialTokens?: readonly string[];
  /** The least number of occurrences for which a pair is merged (default 2). */
  readonly minimumFrequency?: number;
}

/** A trained vocabulary: ids by token (in the byte alphabet) and merges, best first. */
export interface BpeVocabulary {
  readonly specialTokens: readonly string[];
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly merges: readonly (readonly [string, string])[];
}

/** Ids are below this, so that a pair of ids is one exact number. */
const pairBase = 2 ** 26;

/**
 * Trains a byte-level byte-pair encoding (Sennrich et al. 2016; bytes as in GPT-2) on texts and gives
 * it as a tokenizer, whose files `saveTokenizer` writes.
 * @throws DataError where the texts are empty; ConfigError where the vocabulary cannot hold the bytes.
 */
export async function trainTokenizer(
  texts: Iterable<string> | AsyncIterable<string>,
  options: BpeTrainingOptions,
): Promise<Tokenizer> {
  const beginToken = options.beginToken ?? "<|begin_of_text|>";
  const endToken = options.endToken ?? "<|end_of_text|>";
  const specialTokens = [...new Set([beginToken, endToken, ...(options.specialTokens ?? [])])];
  const words = await countWords(texts, specialTokens);
  const trained = trainBpe(words, { ...options, specialTokens });
  const begin = trained.vocabulary.get(beginToken)!;
  const definition = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: trained.vocabulary.get(content)!,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: beginToken, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        { SpecialToken: { id: beginToken, type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: beginToken, type_id: 1 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: { [beginToken]: { id: beginToken, ids: [begin], tokens: [beginToken] } },
    },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(trained.vocabulary),
      // The older of the two spellings: every reader knows it, and no byte-level token holds a space.
      merges: trained.merges.map(([left, right]) => `${left} ${right}`),
    },
  };
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: beginToken,
    eos_token: endToken,
    clean_up_tokenization_spaces: false,
  };
  return createTokenizer(JSON.stringify(definition), `${JSON.stringify(config, null, 2)}\n`);
}

/**
 * Counts the words (pre-tokens, in the byte alphabet) of texts. Special tokens that stand in a text
 * are left out, as an encoder leaves them whole.
 */
export async function countWords(
  texts: Iterable<string> | AsyncIterable<string>,
  specialTokens: readonly string[] = [],
): Promise<Map<string, number>> {
  const counts = new Map<string, number>();
  for await (const text of texts) {
    for (const part of splitOn(text, specialTokens)) {
      for (const word of preTokenize(part)) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  const byteWords = new Map<string, number>();
  for (const [word, count] of counts) byteWords.set(byteLevelText(word), count);
  return byteWords;
}

/**
 * Learns merges from word counts: again and again the most frequent adjacent pair becomes one token;
 * among equals, the pair with the smaller ids, left first. Counts of pairs are kept up to date word by
 * word, so a merge costs as much as the words that it changes.
 */
export function trainBpe(
  words: ReadonlyMap<string, number>,
  options: Pick<BpeTrainingOptions, "vocabularySize" | "minimumFrequency" | "specialTokens">,
): BpeVocabulary {
  const specialTokens = options.specialTokens ?? [];
  const smallest = byteAlphabet.length + specialTokens.length;
  if (
    !Number.isInteger(options.vocabularySize) ||
    options.vocabularySize < smallest ||
    options.vocabularySize >= pairBase
  ) {
    throw new ConfigError("bad_vocabulary_size", "the vocabulary size cannot be used", {
      expected: `an integer from ${smallest} (256 bytes and ${specialTokens.length} special tokens) to ${pairBase - 1}`,
      received: String(options.vocabularySize),
    });
  }
  if (words.size === 0) {
    throw new DataError("empty_data", "there is no text to train a tokenizer on", {
      hint: "check the path and the text field of the data",
    });
  }
  const tokens = [...specialTokens, ...byteAlphabet];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const special = new Set(specialTokens);
  const pairs = new PairCounts(words, ids);
  const merges: [string, string][] = [];
  const minimumFrequency = Math.max(1, options.minimumFrequency ?? 2);
  while (tokens.length < options.vocabularySize) {
    const pair = pairs.takeBest(minimumFrequency);
    if (pair === undefined) break;
    const left = Math.floor(pair / pairBase);
    const right = pair % pairBase;
    const merged = tokens[left]! + tokens[right]!;
    if (special.has(merged)) continue;
    let id = ids.get(merged);
    if (id === undefined) {
      id = tokens.length;
      tokens.push(merged);
      ids.set(merged, id);
    }
    merges.push([tokens[left]!, tokens[right]!]);
    pairs.merge(pair, id);
  }
  return { specialTokens, vocabulary: ids, merges };
}

/** The words as symbols, how often each adjacent pair occurs, and in which words. */
class PairCounts {
  readonly #words: number[][] = [];
  readonly #wordCounts: number[] = [];
  readonly #counts = new Map<number, number>();
  readonly #places = new Map<number, number[]>();
  readonly #heap = new PairHeap();
  /** Pairs whose count has grown since they were last put on the heap. */
  readonly #grown = new Set<number>();

  constructor(words: ReadonlyMap<string, number>, ids: ReadonlyMap<string, number>) {
    for (const [word, count] of words) {
      const index = this.#words.length;
      const symbols = Array.from(word, (symbol) => ids.get(symbol)!);
      this.#words.push(symbols);
      this.#wordCounts.push(count);
      for (let i = 0; i + 1 < symbols.length; i++) {
        this.#change(symbols[i]! * pairBase + symbols[i + 1]!, count, index);
      }
    }
    this.#pushGrown();
  }

  /** The most frequent pair, or undefined where none is frequent enough. It is not offered again. */
  takeBest(minimumFrequency: number): number | undefined {
    for (;;) {
      const top = this.#heap.pop();
      if (top === undefined) return undefined;
      const count = this.#counts.get(top.pair) ?? 0;
      // Counts that fell after the entry was pushed are corrected here, when it comes to the top.
      if (count < top.count) {
        if (count >= minimumFrequency) this.#heap.push(top.pair, count);
      } else if (count < minimumFrequency) {
        return undefined;
      } else if (count === top.count) {
        return top.pair;
      }
    }
  }

  /** Replaces the pair by one symbol in every word. */
  merge(pair: number, merged: number): void {
    const left = Math.floor(pair / pairBase);
    const right = pair % pairBase;
    for (const index of this.#places.get(pair) ?? []) this.#mergeWord(index, left, right, merged);
    this.#places.delete(pair);
    this.#counts.delete(pair);
    this.#pushGrown();
  }

  #mergeWord(index: number, left: number, right: number, merged: number): void {
    const word = this.#words[index]!;
    const count = this.#wordCounts[index]!;
    let length = 0;
    for (let i = 0; i < word.length; i++) {
      const symbol = word[i]!;
      if (symbol !== left || word[i + 1] !== right) {
        word[length++] = symbol;
        continue;
      }
      if (length > 0) {
        const previous = word[length - 1]!;
        this.#change(previous * pairBase + left, -count, index);
        this.#change(previous * pairBase + merged, count, index);
      }
      const next = word[i + 2];
      if (next !== undefined) {
        this.#change(right * pairBase + next, -count, index);
        this.#change(merged * pairBase + next, count, index);
      }
      word[length++] = merged;
      i++;
    }
    word.length = length;
  }

  #change(pair: number, amount: number, index: number): void {
    this.#counts.set(pair, (this.#counts.get(pair) ?? 0) + amount);
    if (amount < 0) return;
    this.#grown.add(pair);
    const places = this.#places.get(pair);
    if (places === undefined) this.#places.set(pair, [index]);
    else if (places.at(-1) !== index) places.push(index);
  }

  #pushGrown(): void {
    for (const pair of this.#grown) {
      const count = this.#counts.get(pair) ?? 0;
      if (count > 0) this.#heap.push(pair, count);
    }
    this.#grown.clear();
  }
}

function splitOn(text: string, separators: readonly string[]): string[] {
  return separators.reduce((parts, separator) => parts.flatMap((part) => part.split(separator)), [text]);
}
