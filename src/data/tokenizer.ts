import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { DataError, FileFormatError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import { messageOf, writeFileAside } from "./files.ts";
import { type TokenPieces, tokenPieces } from "./token_pieces.ts";

/** What `encode` may be asked. */
export interface EncodeOptions {
  /** Add the tokens that the tokenizer puts around a text, such as a begin token (default true). */
  readonly addSpecialTokens?: boolean;
}

/** What `decode` may be asked. */
export interface DecodeOptions {
  /** Leave special tokens (begin, end, ...) out of the text (default true). */
  readonly skipSpecialTokens?: boolean;
}

/** Text to token ids and back. */
export interface Tokenizer {
  /** One more than the largest id that `encode` can return. */
  readonly vocabularySize: number;
  /** The id that opens a text, where the tokenizer has one. */
  readonly beginToken?: number;
  /** The id that ends a text, where the tokenizer has one. */
  readonly endToken?: number;
  /** A hash of everything that decides how text becomes ids; caches of ids are keyed by it. */
  readonly identity: string;
  encode(text: string, options?: EncodeOptions): number[];
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** The id of a token written as in the vocabulary. */
  tokenToId(token: string): number | undefined;
  /** The token of an id, written as in the vocabulary. */
  idToToken(id: number): string | undefined;
  /** What single tokens add to a text, where the tokenizer's decoder is one that adds up their pieces. */
  readonly pieces?: TokenPieces | undefined;
  /** The Jinja template that turns chat messages into text, where the tokenizer has one. */
  readonly chatTemplate?: string;
  /** The files of the tokenizer, by name, to be stored beside a model: see `saveTokenizer`. */
  readonly files: Readonly<Record<string, string>>;
}

/** The part of `tokenizer_config.json` that is read here. */
export interface TokenizerConfig {
  readonly bos_token?: unknown;
  readonly eos_token?: unknown;
  readonly add_bos_token?: unknown;
  readonly add_eos_token?: unknown;
  readonly clean_up_tokenization_spaces?: unknown;
  readonly chat_template?: unknown;
}

/**
 * Loads the tokenizer of a Hugging Face folder: `tokenizer.json` and, where they are there,
 * `tokenizer_config.json` and `chat_template.jinja`.
 * @throws FileFormatError where a file is missing or cannot be understood.
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const path = join(folder, "tokenizer.json");
  const configPath = join(folder, "tokenizer_config.json");
  const text = await readText(path);
  if (text === undefined) {
    throw new FileFormatError("missing_tokenizer", "the folder has no tokenizer.json", {
      where: path,
      hint: "give a Hugging Face model folder; one with only a tokenizer.model needs converting first",
    });
  }
  const configText = await readText(configPath);
  const tokenizer = createTokenizer(text, configText ?? "{}", { path, configPath });
  const chatTemplate = await readText(join(folder, chatTemplateFile));
  if (chatTemplate === undefined) return tokenizer;
  return { ...tokenizer, chatTemplate, files: { ...tokenizer.files, [chatTemplateFile]: chatTemplate } };
}

/** Where a folder keeps its chat template, if not in `tokenizer_config.json`. */
const chatTemplateFile = "chat_template.jinja";

/**
 * A tokenizer from the texts of `tokenizer.json` and `tokenizer_config.json`.
 * @throws FileFormatError naming the file (`paths`) that cannot be understood.
 */
export function createTokenizer(
  text: string,
  configText: string,
  paths: { path: string; configPath: string } = {
    path: "tokenizer.json",
    configPath: "tokenizer_config.json",
  },
): Tokenizer {
  const definition = parseObject(text, paths.path);
  const config = parseObject(configText, paths.configPath);
  return createTokenizerFrom(definition, config, { ...paths, texts: () => ({ text, configText }) });
}

/**
 * A tokenizer from what `tokenizer.json` and `tokenizer_config.json` hold, wherever it comes from (a GGUF file's
 * metadata). The files' texts are made when they are first asked for.
 * @throws FileFormatError naming the file (`paths`) that cannot be understood.
 */
export function createTokenizerFrom(
  definition: Readonly<Record<string, unknown>>,
  config: TokenizerConfig & Readonly<Record<string, unknown>>,
  paths: {
    readonly path: string;
    readonly configPath: string;
    readonly texts?: () => { readonly text: string; readonly configText: string };
  },
): Tokenizer {
  let tokenizer: HuggingFaceTokenizer;
  try {
    tokenizer = new HuggingFaceTokenizer(definition, config);
  } catch (cause) {
    throw new FileFormatError("corrupt_tokenizer", "tokenizer.json does not describe a usable tokenizer", {
      where: paths.path,
      received: messageOf(cause),
      hint: "download or train the tokenizer again",
      cause,
    });
  }
  let vocabularySize = 0;
  for (const id of tokenizer.get_vocab(true).values()) vocabularySize = Math.max(vocabularySize, id + 1);
  const beginToken = specialToken(tokenizer, config, "bos_token", paths.configPath);
  const endToken = specialToken(tokenizer, config, "eos_token", paths.configPath);
  // Transformers once tidied spaces before punctuation by default, which loses text; only a config
  // that asks for it gets it.
  const tidySpaces = config.clean_up_tokenization_spaces === true;

  let pieces: { readonly value: TokenPieces | undefined } | undefined;
  let made: { readonly text: string; readonly configText: string } | undefined;
  const texts = (): { readonly text: string; readonly configText: string } => {
    made ??= paths.texts?.() ?? {
      text: JSON.stringify(definition),
      configText: `${JSON.stringify(config, null, 2)}\n`,
    };
    return made;
  };
  const chatTemplate = chatTemplateOf(config);
  let identity: string | undefined;

  return {
    vocabularySize,
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
    ...(beginToken === undefined ? {} : { beginToken }),
    ...(endToken === undefined ? {} : { endToken }),
    get identity() {
      const { text, configText } = texts();
      identity ??= createHash("sha256").update(text).update("\0").update(configText).digest("hex");
      return identity;
    },
    get files() {
      const { text, configText } = texts();
      return { "tokenizer.json": text, "tokenizer_config.json": configText };
    },
    encode(input, options = {}) {
      const addSpecialTokens = options.addSpecialTokens ?? true;
      const { ids, tokens } = tokenizer.encode(input, { add_special_tokens: addSpecialTokens });
      const unknown = ids.findIndex((id: unknown) => typeof id !== "number");
      if (unknown >= 0) {
        throw new DataError("unknown_token", "the tokenizer has no id for a part of the text", {
          received: JSON.stringify(tokens[unknown]),
          where: paths.path,
        });
      }
      if (!addSpecialTokens) return ids;
      // Some folders ask for these tokens in the config alone and have no post-processor for them.
      if (config.add_bos_token === true && beginToken !== undefined && ids[0] !== beginToken) {
        ids.unshift(beginToken);
      }
      if (config.add_eos_token === true && endToken !== undefined && ids.at(-1) !== endToken) {
        ids.push(endToken);
      }
      return ids;
    },
    decode(ids, options = {}) {
      if (ids.length === 0) return "";
      return tokenizer.decode(Array.from(ids), {
        skip_special_tokens: options.skipSpecialTokens ?? true,
        clean_up_tokenization_spaces: tidySpaces,
      });
    },
    get pieces() {
      pieces ??= { value: tokenPieces(definition, config, (id) => tokenizer.id_to_token(id)) };
      return pieces.value;
    },
    tokenToId: (token) => tokenizer.token_to_id(token),
    idToToken: (id) => tokenizer.id_to_token(id),
  };
}

/** Writes a tokenizer's files into a folder, each written aside and renamed. */
export async function saveTokenizer(tokenizer: Tokenizer, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const [name, text] of Object.entries(tokenizer.files)) await writeFileAside(join(folder, name), text);
}

/**
 * Holds a tokenizer against the model that it is to feed.
 * @throws DataError where the tokenizer can produce ids that the model has no embedding for.
 */
export function checkVocabulary(tokenizer: Tokenizer, modelVocabularySize: number): void {
  if (tokenizer.vocabularySize <= modelVocabularySize) return;
  const largest = tokenizer.vocabularySize - 1;
  throw new DataError("vocabulary_too_large", "the tokenizer's vocabulary exceeds the model's", {
    expected: `token ids from 0 to ${modelVocabularySize - 1} (the model's vocabulary is ${modelVocabularySize})`,
    received: `ids up to ${largest} (${JSON.stringify(tokenizer.idToToken(largest) ?? "?")})`,
    hint: `use the model's own tokenizer, or give the model a vocabulary of at least ${tokenizer.vocabularySize}`,
  });
}

/**
 * Checks that ids are integers within a vocabulary.
 * @throws DataError naming the first wrong id, its index and `where` it came from.
 */
export function checkTokenIds(ids: ArrayLike<number>, vocabularySize: number, where: string): void {
  for (let index = 0; index < ids.length; index++) {
    const id = ids[index]!;
    if (Number.isInteger(id) && id >= 0 && id < vocabularySize) continue;
    throw new DataError("token_out_of_range", "a token id is outside the vocabulary", {
      expected: `integers from 0 to ${vocabularySize - 1}`,
      received: `${id} (token ${index})`,
      where,
      hint: "the ids come from another tokenizer, or the data is damaged",
    });
  }
}

/** The chat template of a config: one, or the one that is named "default" of several. */
function chatTemplateOf({ chat_template: template }: TokenizerConfig): string | undefined {
  if (typeof template === "string") return template;
  if (!Array.isArray(template)) return undefined;
  const named = template.find((entry: { name?: unknown }) => entry?.name === "default") as
    | { template?: unknown }
    | undefined;
  return typeof named?.template === "string" ? named.template : undefined;
}

function specialToken(
  tokenizer: HuggingFaceTokenizer,
  config: TokenizerConfig,
  key: "bos_token" | "eos_token",
  configPath: string,
): number | undefined {
  const value = config[key];
  const token =
    typeof value === "object" && value !== null && "content" in value ? value.content : (value ?? undefined);
  if (token === undefined) return undefined;
  const id = typeof token === "string" ? tokenizer.token_to_id(token) : undefined;
  if (id === undefined) {
    throw new FileFormatError("corrupt_tokenizer", `"${key}" is not a token of the vocabulary`, {
      where: configPath,
      received: JSON.stringify(value),
    });
  }
  return id;
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if (["ENOENT", "ENOTDIR"].includes(systemErrorCode(cause) ?? "")) return undefined;
    throw new FileFormatError("unreadable_tokenizer", "cannot read a file of the tokenizer", {
      where: path,
      received: messageOf(cause),
      cause,
    });
  }
}

function parseObject(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FileFormatError("corrupt_tokenizer", "a file of the tokenizer is not valid JSON", {
      where: path,
      received: messageOf(cause),
      hint: "the file may be truncated, or a Git LFS pointer: download it again",
      cause,
    });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new FileFormatError("corrupt_tokenizer", "a file of the tokenizer does not hold a JSON object", {
      where: path,
    });
  }
  return value as Record<string, unknown>;
}
