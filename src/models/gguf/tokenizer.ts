import { FileFormatError } from "../../base/errors.ts";
import type { GgufFile, Metadata } from "../../checkpoint/gguf/index.ts";
import { preTokenizers } from "./pre_tokenizers.ts";
import { mergesByScore } from "./sentencepiece.ts";

/** A tokenizer as Hugging Face's files describe it: see `createTokenizerFrom` of the data room. */
export interface TokenizerDescription {
  /** What `tokenizer.json` would hold. */
  readonly definition: Record<string, unknown>;
  /** What `tokenizer_config.json` would hold. */
  readonly config: Record<string, unknown>;
}

/** The numbers of `tokenizer.ggml.token_type`. */
export const tokenTypes = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** The character that stands for a space in SentencePiece vocabularies. */
const spaceMark = "\u2581";

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly typeOf: (id: number) => number;
}

/**
 * The tokenizer in a GGUF file's metadata, with its chat template.
 * @throws FileFormatError where there is none, or one of a kind that Slipstream does not know.
 */
export function tokenizerOfGguf({ metadata, path }: GgufFile): TokenizerDescription {
  const kind = metadata.get("tokenizer.ggml.model", "string");
  if (kind === undefined || kind === "none" || kind === "no_vocab") {
    throw new FileFormatError("missing_tokenizer", "the GGUF file has no tokenizer", {
      where: path,
      expected: 'metadata "tokenizer.ggml.model" with the tokens',
      hint: "prompts can still be given as token ids",
    });
  }
  if (kind !== "llama" && kind !== "gpt2") {
    throw metadata.error("tokenizer.ggml.model", "llama (SentencePiece) or gpt2 (byte-level BPE)", kind);
  }
  const vocabulary = readVocabulary(metadata);
  const { tokens } = vocabulary;
  const special = (name: string): string | undefined => {
    const id = metadata.get(`tokenizer.ggml.${name}_token_id`, "count");
    if (id !== undefined && id >= tokens.length) {
      throw metadata.error(`tokenizer.ggml.${name}_token_id`, `a token below ${tokens.length}`, String(id));
    }
    return id === undefined ? undefined : tokens[id];
  };
  const pre = kind === "gpt2" ? readPreTokenizer(metadata) : undefined;
  const begin = special("bos");
  const end = special("eos");
  const addsBegin = metadata.get("tokenizer.ggml.add_bos_token", "flag") ?? pre?.addsBegin ?? true;
  const addsEnd = metadata.get("tokenizer.ggml.add_eos_token", "flag") ?? false;
  const template = metadata.get("tokenizer.chat_template", "string");
  const around = {
    begin: addsBegin ? begin : undefined,
    end: addsEnd ? end : undefined,
    idOf: (token: string) => tokens.indexOf(token),
  };
  const model =
    kind === "llama"
      ? sentencePieceModel(metadata, vocabulary, special("unknown"))
      : byteModel(metadata, vocabulary);
  return {
    definition: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary),
      ...model,
      post_processor: postProcessor(around),
    },
    config: {
      add_bos_token: around.begin !== undefined,
      add_eos_token: around.end !== undefined,
      ...(begin === undefined ? {} : { bos_token: begin }),
      ...(end === undefined ? {} : { eos_token: end }),
      ...(special("unknown") === undefined ? {} : { unk_token: special("unknown") }),
      ...(special("padding") === undefined ? {} : { pad_token: special("padding") }),
      ...(template === undefined ? {} : { chat_template: template }),
      clean_up_tokenization_spaces: false,
      tokenizer_class: kind === "llama" ? "LlamaTokenizer" : "PreTrainedTokenizerFast",
    },
  };
}

function readVocabulary(metadata: Metadata): Vocabulary {
  const tokens = metadata.need("tokenizer.ggml.tokens", "strings");
  const types = metadata.get("tokenizer.ggml.token_type", "numbers");
  if (types !== undefined && types.length !== tokens.length) {
    throw metadata.error("tokenizer.ggml.token_type", `${tokens.length} types`, `${types.length}`);
  }
  if (tokens.length === 0) throw metadata.error("tokenizer.ggml.tokens", "at least one token", "none");
  if (types !== undefined) return { tokens, typeOf: (id) => types[id]! };
  const special = ["bos", "eos"].map((name) => metadata.get(`tokenizer.ggml.${name}_token_id`, "count"));
  return { tokens, typeOf: (id) => (special.includes(id) ? tokenTypes.control : tokenTypes.normal) };
}

function readPreTokenizer(metadata: Metadata): (typeof preTokenizers)[number] {
  const name = metadata.get("tokenizer.ggml.pre", "string") ?? "default";
  const found = preTokenizers.find(({ names }) => names.includes(name));
  if (found !== undefined) return found;
  const known = preTokenizers.flatMap(({ names }) => names).join(", ");
  throw metadata.error("tokenizer.ggml.pre", known, JSON.stringify(name));
}

function addedTokens({ tokens, typeOf }: Vocabulary): object[] {
  const added: object[] = [];
  tokens.forEach((content, id) => {
    const type = typeOf(id);
    const special = type === tokenTypes.control || type === tokenTypes.unknown;
    if (!special && type !== tokenTypes.userDefined) return;
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special });
  });
  return added;
}

/** The ids of tokens by their text. Of a text that is there twice the first counts, as in llama.cpp. */
function idsByToken(tokens: readonly string[]): Record<string, number> {
  const ids: Record<string, number> = Object.create(null) as Record<string, number>;
  for (let id = tokens.length - 1; id >= 0; id--) ids[tokens[id]!] = id;
  return ids;
}

function sentencePieceModel(
  metadata: Metadata,
  { tokens, typeOf }: Vocabulary,
  unknown: string | undefined,
): object {
  const scores = metadata.need("tokenizer.ggml.scores", "numbers");
  if (scores.length !== tokens.length) {
    throw metadata.error("tokenizer.ggml.scores", `${tokens.length} scores`, `${scores.length}`);
  }
  const prefixes = metadata.get("tokenizer.ggml.add_space_prefix", "flag") ?? true;
  const isPiece = (id: number): boolean => typeOf(id) === tokenTypes.normal;
  const spaces = { type: "Replace", pattern: { String: " " }, content: spaceMark };
  const decoders = [
    { type: "Replace", pattern: { String: spaceMark }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    ...(prefixes ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
  ];
  return {
    normalizer: {
      type: "Sequence",
      normalizers: [...(prefixes ? [{ type: "Prepend", prepend: spaceMark }] : []), spaces],
    },
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders },
    model: {
      ...bpe,
      unk_token: unknown ?? null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: idsByToken(tokens),
      merges: mergesByScore(tokens, scores, isPiece),
    },
  };
}

const bpe = {
  type: "BPE",
  dropout: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
} as const;

function byteModel(metadata: Metadata, { tokens }: Vocabulary): object {
  const pre = readPreTokenizer(metadata);
  const merges = metadata.need("tokenizer.ggml.merges", "strings").map((merge, index) => {
    const space = merge.indexOf(" ", 1);
    if (space > 0) return [merge.slice(0, space), merge.slice(space + 1)];
    throw metadata.error("tokenizer.ggml.merges", `two tokens in merge ${index}`, JSON.stringify(merge));
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };
  return {
    normalizer: pre.composes === true ? { type: "NFC" } : null,
    pre_tokenizer:
      pre.patterns === undefined
        ? { ...byteLevel, use_regex: true }
        : {
            type: "Sequence",
            pretokenizers: [
              ...pre.patterns.map((pattern) => ({
                type: "Split",
                pattern: { Regex: pattern },
                behavior: "Isolated",
                invert: false,
              })),
              { ...byteLevel, use_regex: false },
            ],
          },
    decoder: { ...byteLevel, add_prefix_space: true, use_regex: true },
    model: {
      ...bpe,
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: idsByToken(tokens),
      merges,
    },
  };
}

function postProcessor(around: {
  readonly begin: string | undefined;
  readonly end: string | undefined;
  readonly idOf: (token: string) => number;
}): object | null {
  const { begin, end, idOf } = around;
  if (begin === undefined && end === undefined) return null;
  const part = (type: number): object[] => [
    ...(begin === undefined ? [] : [{ SpecialToken: { id: begin, type_id: type } }]),
    { Sequence: { id: type === 0 ? "A" : "B", type_id: type } },
    ...(end === undefined ? [] : [{ SpecialToken: { id: end, type_id: type } }]),
  ];
  const tokens = [begin, end].filter((token) => token !== undefined);
  return {
    type: "TemplateProcessing",
    single: part(0),
    pair: [...part(0), ...part(1)],
    special_tokens: Object.fromEntries(
      tokens.map((token) => [token, { id: token, ids: [idOf(token)], tokens: [token] }]),
    ),
  };
}
