import { FileFormatError } from "../../base/errors.ts";
import type { GgufEntry } from "../../checkpoint/gguf/index.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../../checkpoint/index.ts";
import type { ConfigJson } from "../family.ts";
import { preTokenizers } from "./pre_tokenizers.ts";
import { scoresOfMerges } from "./sentencepiece.ts";
import { tokenTypes } from "./tokenizer.ts";

/** What the metadata of a tokenizer is made from. */
export interface TokenizerSource {
  /** What `tokenizer.json` holds. */
  readonly definition: JsonObject;
  /** What `tokenizer_config.json` holds. */
  readonly config: JsonObject;
  readonly chatTemplate?: string | undefined;
  /** The model's config, for begin and end tokens that the tokenizer's does not name. */
  readonly model: ConfigJson;
  /** Tokens of the model, which may be more than the tokenizer's. */
  readonly vocabularySize: number;
  /** The file, for errors. */
  readonly where: string;
}

/**
 * A tokenizer as GGUF metadata: SentencePiece vocabularies as "llama", byte-level BPE as "gpt2".
 * @throws FileFormatError naming the part of the tokenizer that GGUF files cannot say.
 */
export function tokenizerEntries(source: TokenizerSource): Map<string, GgufEntry> {
  const { definition, where } = source;
  const model = definition.model;
  if (!isJsonObject(model) || model.type !== "BPE" || !isJsonObject(model.vocab)) {
    const type = isJsonObject(model) ? JSON.stringify(model.type) : "no model";
    throw unsupported(where, "a tokenizer with a BPE model", type ?? "no type");
  }
  const isSentencePiece = model.byte_fallback === true && !usesByteLevel(definition.pre_tokenizer ?? null);
  const { tokens, types } = vocabularyOf(definition, model, isSentencePiece, source.vocabularySize);
  const merges = mergesOf(model, where);
  const entries = new Map<string, GgufEntry>();
  entries.set("tokenizer.ggml.model", { type: "string", value: isSentencePiece ? "llama" : "gpt2" });
  const pre = isSentencePiece ? "default" : preTokenizerName(definition.pre_tokenizer ?? null, where);
  entries.set("tokenizer.ggml.pre", { type: "string", value: pre });
  entries.set("tokenizer.ggml.tokens", { type: "strings", value: tokens });
  if (isSentencePiece) {
    entries.set("tokenizer.ggml.scores", { type: "float32s", value: scoresOfMerges(tokens, merges) });
    const text = JSON.stringify([definition.normalizer, definition.pre_tokenizer]);
    const prefixes = text.includes('"Prepend"') || /"prepend_scheme":"(first|always)"/.test(text);
    entries.set("tokenizer.ggml.add_space_prefix", { type: "bool", value: prefixes });
  } else {
    const value = merges.map(([left, right]) => `${left} ${right}`);
    entries.set("tokenizer.ggml.merges", { type: "strings", value });
  }
  entries.set("tokenizer.ggml.token_type", { type: "int32s", value: types });
  addSpecialTokens(entries, source, tokens);
  if (source.chatTemplate !== undefined) {
    entries.set("tokenizer.chat_template", { type: "string", value: source.chatTemplate });
  }
  return entries;
}

function unsupported(where: string, expected: string, received: string): FileFormatError {
  return new FileFormatError("unsupported_tokenizer", "GGUF files cannot hold this tokenizer", {
    where,
    expected,
    received,
  });
}

function vocabularyOf(
  definition: JsonObject,
  model: JsonObject,
  isSentencePiece: boolean,
  size: number,
): { readonly tokens: string[]; readonly types: number[] } {
  const tokens = new Array<string | undefined>(size).fill(undefined);
  const types = new Array<number>(size).fill(tokenTypes.unused);
  const put = (id: unknown, token: string, type: number): void => {
    if (typeof id !== "number" || id >= size) return;
    tokens[id] = token;
    types[id] = type;
  };
  for (const [token, id] of Object.entries(model.vocab as JsonObject)) {
    const isByte = isSentencePiece && /^<0x[0-9A-F]{2}>$/.test(token);
    put(id, token, isByte ? tokenTypes.byte : tokenTypes.normal);
  }
  const added = Array.isArray(definition.added_tokens) ? definition.added_tokens : [];
  for (const entry of added as readonly JsonValue[]) {
    if (!isJsonObject(entry) || typeof entry.content !== "string") continue;
    const isUnknown = entry.content === model.unk_token;
    const special = isUnknown ? tokenTypes.unknown : tokenTypes.control;
    put(entry.id, entry.content, entry.special === true ? special : tokenTypes.userDefined);
  }
  return { tokens: tokens.map((token, id) => token ?? `[PAD${id}]`), types };
}

function mergesOf(model: JsonObject, where: string): (readonly [string, string])[] {
  const merges = Array.isArray(model.merges) ? (model.merges as readonly JsonValue[]) : [];
  return merges.map((merge) => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (Array.isArray(pair) && pair.length === 2) return pair as unknown as readonly [string, string];
    throw unsupported(where, "merges of two tokens", JSON.stringify(merge));
  });
}

/** The steps of a pre-tokenizer, of which there may be one, several or none. */
function stepsOf(preTokenizer: JsonValue): readonly JsonObject[] {
  if (!isJsonObject(preTokenizer)) return [];
  if (preTokenizer.type !== "Sequence") return [preTokenizer];
  const steps = Array.isArray(preTokenizer.pretokenizers) ? preTokenizer.pretokenizers : [];
  return (steps as readonly JsonValue[]).filter(isJsonObject);
}

function usesByteLevel(preTokenizer: JsonValue): boolean {
  return stepsOf(preTokenizer).some(({ type }) => type === "ByteLevel");
}

function preTokenizerName(preTokenizer: JsonValue, where: string): string {
  const steps = stepsOf(preTokenizer);
  const patterns = steps
    .filter(({ type }) => type === "Split")
    .map(({ pattern }) => (isJsonObject(pattern) ? pattern.Regex : undefined));
  const isGpt2 =
    patterns.length === 0 && steps.some((step) => step.type === "ByteLevel" && step.use_regex !== false);
  const wanted = JSON.stringify(isGpt2 ? undefined : patterns);
  const found = preTokenizers.find(({ patterns: known }) => JSON.stringify(known) === wanted);
  const others = steps.filter(({ type }) => type !== "Split" && type !== "ByteLevel");
  if (found !== undefined && others.length === 0) return found.names[0]!;
  const known = preTokenizers.map(({ names }) => names[0]).join(", ");
  throw unsupported(
    `pre_tokenizer of ${where}`,
    `the pattern of one of ${known}`,
    JSON.stringify(preTokenizer).slice(0, 300),
  );
}

/** The tokens that a post-processor's template puts before and after a text. */
function templateTokens(processor: JsonValue): { readonly first?: string; readonly last?: string } {
  if (!isJsonObject(processor)) return {};
  if (processor.type === "Sequence" && Array.isArray(processor.processors)) {
    return Object.assign({}, ...(processor.processors as readonly JsonValue[]).map(templateTokens)) as object;
  }
  if (processor.type !== "TemplateProcessing" || !Array.isArray(processor.single)) return {};
  const single = processor.single as readonly JsonValue[];
  const special = (piece: JsonValue | undefined): string | undefined => {
    const token = isJsonObject(piece) ? piece.SpecialToken : undefined;
    return isJsonObject(token) && typeof token.id === "string" ? token.id : undefined;
  };
  const first = special(single[0]);
  const last = special(single.at(-1));
  return { ...(first === undefined ? {} : { first }), ...(last === undefined ? {} : { last }) };
}

function addSpecialTokens(
  entries: Map<string, GgufEntry>,
  { definition, config, model }: TokenizerSource,
  tokens: readonly string[],
): void {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const named = (key: string): number | undefined => {
    const value = config[key];
    const token = isJsonObject(value) ? value.content : value;
    return typeof token === "string" ? ids.get(token) : undefined;
  };
  const ofModel = (key: string): number | undefined => {
    const value = Array.isArray(model[key]) ? (model[key] as unknown[])[0] : model[key];
    return Number.isInteger(value) && (value as number) < tokens.length ? (value as number) : undefined;
  };
  const { first, last } = templateTokens(definition.post_processor ?? null);
  const begin =
    named("bos_token") ?? (first === undefined ? undefined : ids.get(first)) ?? ofModel("bos_token_id");
  const end =
    named("eos_token") ?? (last === undefined ? undefined : ids.get(last)) ?? ofModel("eos_token_id");
  const put = (key: string, value: number | undefined): void => {
    if (value !== undefined) entries.set(`tokenizer.ggml.${key}_token_id`, { type: "uint32", value });
  };
  put("bos", begin);
  put("eos", end);
  put("unknown", named("unk_token"));
  put("padding", named("pad_token"));
  const adds = (token: number | undefined, key: string, around: string | undefined): boolean =>
    token !== undefined && (config[key] === true || (around !== undefined && ids.get(around) === token));
  const flags = [
    ["tokenizer.ggml.add_bos_token", adds(begin, "add_bos_token", first)],
    ["tokenizer.ggml.add_eos_token", adds(end, "add_eos_token", last)],
  ] as const;
  for (const [key, value] of flags) entries.set(key, { type: "bool", value });
}
