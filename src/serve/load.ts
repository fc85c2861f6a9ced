import { readFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { FileFormatError } from "../base/errors.ts";
import { systemErrorCode } from "../base/system_errors.ts";
import type { Tokenizer } from "../data/index.ts";
import { type LoadOptions, loadModelTokenizer, loadModelWith } from "../models/index.ts";
import type { Backend } from "../runtime/backend.ts";
import type { EngineParts } from "./engine/options.ts";

/** How to load what is served. */
export interface ServingLoadOptions extends LoadOptions {
  /** The name under which the model is served; the folder's or the file's by default. */
  readonly modelName?: string;
}

type Json = Readonly<Record<string, unknown>>;

/**
 * Loads a Hugging Face folder or a `.gguf` file with everything that serving needs of it: the model, its tokenizer, its chat template
 * and the tokens that end a text.
 * @throws FileFormatError, ConfigError saying what is wrong with which file.
 */
export async function loadForServing(
  backend: Backend,
  path: string,
  options: ServingLoadOptions = {},
): Promise<EngineParts> {
  const { modelName, ...loadOptions } = options;
  const [model, tokenizer, generation, template] = await Promise.all([
    loadModelWith(backend, path, loadOptions),
    loadModelTokenizer(path),
    readJson(join(path, "generation_config.json")),
    readText(join(path, "chat_template.jinja")),
  ]);
  const tokenizerConfig = parseJson(tokenizer.files["tokenizer_config.json"] ?? "{}", path);
  const chatTemplate = template ?? templateOf(tokenizerConfig.chat_template);
  return {
    model,
    tokenizer,
    modelName: modelName ?? basename(resolve(path), ".gguf"),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
    specialTokens: specialTokensOf(tokenizerConfig),
    endTokens: endTokensOf([model.parts.config, generation], tokenizer),
  };
}

/** Ids under `eos_token_id` of `config.json` and `generation_config.json`, and the tokenizer's own. */
function endTokensOf(configs: readonly Json[], tokenizer: Tokenizer): number[] {
  const ids = configs
    .flatMap(({ eos_token_id: value }) => value)
    .filter((id): id is number => Number.isInteger(id));
  if (tokenizer.endToken !== undefined) ids.push(tokenizer.endToken);
  return [...new Set(ids)];
}

/** A template, or the one named "default" of a list of named ones. */
function templateOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return undefined;
  const named = value as readonly { readonly name?: unknown; readonly template?: unknown }[];
  const chosen = named.find(({ name }) => name === "default") ?? named[0];
  return typeof chosen?.template === "string" ? chosen.template : undefined;
}

function specialTokensOf(config: Json): NonNullable<EngineParts["specialTokens"]> {
  const found: Record<string, string> = {};
  for (const name of ["bos", "eos", "pad", "unk"]) {
    const value = config[`${name}_token`];
    const token = typeof value === "object" && value !== null && "content" in value ? value.content : value;
    if (typeof token === "string") found[name] = token;
  }
  return found;
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if (["ENOENT", "ENOTDIR"].includes(systemErrorCode(cause) ?? "")) return undefined;
    throw new FileFormatError("unreadable_file", "a file of the model cannot be read", {
      where: path,
      cause,
    });
  }
}

async function readJson(path: string): Promise<Json> {
  return parseJson((await readText(path)) ?? "{}", path);
}

function parseJson(text: string, path: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FileFormatError("bad_json", "a file of the model is not JSON", { where: path, cause });
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Json;
  throw new FileFormatError("bad_json", "a file of the model does not hold an object", { where: path });
}
