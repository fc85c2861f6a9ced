/** How a byte-level vocabulary cuts text into words before it merges, under the name that GGUF files give it. */
export interface PreTokenizer {
  /** `tokenizer.ggml.pre`; the first is the one that is written. */
  readonly names: readonly string[];
  /** Patterns of words, each cutting what the one before left; undefined: GPT-2's, built into ByteLevel. */
  readonly patterns?: readonly string[];
  /** Words that are tokens are taken whole. */
  readonly ignoreMerges: boolean;
  /** Whether text begins with the begin token where the file does not say. */
  readonly addsBegin: boolean;
  /** Whether text is brought into Unicode's composed form first, as the models' own tokenizers do. */
  readonly composes?: boolean;
}

const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const symbols = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const lower = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const upper = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";

/** Every pre-tokenizer that Slipstream knows. The patterns are those of the models' own tokenizer.json. */
export const preTokenizers: readonly PreTokenizer[] = [
  { names: ["gpt-2", "gpt2"], ignoreMerges: false, addsBegin: false },
  {
    names: ["llama-bpe", "llama3", "llama-v3"],
    patterns: [`${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|${symbols}`],
    ignoreMerges: true,
    addsBegin: true,
  },
  {
    names: ["qwen2", "deepseek-r1-qwen"],
    patterns: [`${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|${symbols}`],
    ignoreMerges: false,
    addsBegin: false,
    composes: true,
  },
  {
    names: ["tekken"],
    patterns: [
      `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*|\\p{N}|` +
        " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ],
    ignoreMerges: true,
    addsBegin: true,
  },
  // What llama.cpp does where a file names no pre-tokenizer.
  {
    names: ["default"],
    patterns: [
      "[\\p{P}\\$\\+<=>\\^~\\|]+",
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)",
      "\\p{N}+",
      "[0-9][0-9][0-9]",
    ],
    ignoreMerges: false,
    addsBegin: false,
  },
];
