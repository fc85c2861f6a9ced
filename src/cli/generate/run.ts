import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, DataError } from "../../base/errors.ts";
import { checkTokenIds, checkVocabulary, StreamDecoder, type Tokenizer } from "../../data/index.ts";
import {
  type ConfigJson,
  generate,
  loadModelTokenizer,
  loadModelWith,
  type Model,
} from "../../models/index.ts";
import { withBackend } from "../backend.ts";
import type { GenerateCommandOptions } from "../commands/generate.ts";
import { loadOptionsOf } from "../options.ts";

/** The tokenizer of a folder; undefined where the prompt is ids and the folder has none. */
async function openTokenizer(options: GenerateCommandOptions, model: Model): Promise<Tokenizer | undefined> {
  try {
    const tokenizer = await loadModelTokenizer(options.model);
    if (options.ids === undefined) checkVocabulary(tokenizer, model.facts.vocabularySize);
    return tokenizer;
  } catch (error) {
    const absent = error instanceof Error && "code" in error && error.code === "missing_tokenizer";
    if (absent && options.ids !== undefined) return undefined;
    throw error;
  }
}

function idsOf(config: ConfigJson): number[] {
  const value = config.eos_token_id;
  return (Array.isArray(value) ? value : [value]).filter((id): id is number => Number.isInteger(id));
}

/** The tokens that end a text: of `config.json`, `generation_config.json` and the tokenizer. */
async function findStopTokens(folder: string, config: ConfigJson, tokenizer?: Tokenizer): Promise<number[]> {
  const stops = idsOf(config);
  const text = await readFile(join(folder, "generation_config.json"), "utf8").catch(() => "{}");
  try {
    stops.push(...idsOf(JSON.parse(text) as ConfigJson));
  } catch {
    throw new ConfigError("bad_json", "generation_config.json is not JSON", { where: folder });
  }
  if (tokenizer?.endToken !== undefined) stops.push(tokenizer.endToken);
  return [...new Set(stops)];
}

/** The ids to continue: never empty, and no more than the model has positions for. */
function promptIds(options: GenerateCommandOptions, model: Model, tokenizer?: Tokenizer): number[] {
  const { vocabularySize, maximumPositions } = model.facts;
  const ids = options.ids === undefined ? encodePrompt(options.prompt!, tokenizer!) : [...options.ids];
  const where = options.ids === undefined ? "--prompt" : "--ids";
  checkTokenIds(ids, vocabularySize, where);
  if (ids.length <= maximumPositions) return ids;
  throw new DataError("sequence_too_long", "the prompt is longer than the model's positions", {
    where,
    expected: `at most ${maximumPositions} tokens (max_position_embeddings)`,
    received: `${ids.length} tokens`,
    hint: "shorten the prompt",
  });
}

function encodePrompt(prompt: string, tokenizer: Tokenizer): number[] {
  const ids = tokenizer.encode(prompt);
  if (ids.length > 0) return ids;
  // An empty prompt begins with the token that begins texts; some tokenizers do not add it by themselves.
  const begin = tokenizer.beginToken ?? tokenizer.endToken;
  if (begin !== undefined) return [begin];
  throw new DataError(
    "empty_prompt",
    "the prompt is empty, and the tokenizer has no token that begins a text",
    {
      hint: "give a prompt of at least one character",
    },
  );
}

/** What `--json` prints; `text` is null where the folder has no tokenizer. */
interface GenerateResult {
  readonly prompt_ids: readonly number[];
  readonly ids: readonly number[];
  readonly text: string | null;
}

async function generateText(
  options: GenerateCommandOptions,
  model: Model,
  write: (piece: string) => void,
): Promise<GenerateResult> {
  const tokenizer = await openTokenizer(options, model);
  const stopTokens = await findStopTokens(options.model, model.parts.config, tokenizer);
  const prompt = promptIds(options, model, tokenizer);
  const decoder = tokenizer === undefined ? undefined : new StreamDecoder(tokenizer, { context: prompt });
  const ids: number[] = [];
  let text = "";
  const emit = (piece: string): void => {
    text += piece;
    if (piece !== "") write(piece);
  };
  if (decoder !== undefined) write(options.prompt ?? tokenizer!.decode(prompt));
  const { maxTokens, temperature, topK, topP, seed } = options;
  for await (const id of generate(model, prompt, { maxTokens, temperature, topK, topP, seed, stopTokens })) {
    ids.push(id);
    if (decoder !== undefined) emit(decoder.push(id));
    else write(`${ids.length === 1 ? "" : ","}${id}`);
  }
  if (decoder !== undefined) emit(decoder.flush());
  return { prompt_ids: prompt, ids, text: decoder === undefined ? null : text };
}

/** Loads a model, continues the prompt, and prints the text as it comes or one JSON object. */
export async function runGenerate(options: GenerateCommandOptions): Promise<void> {
  await withBackend(options, async (backend) => {
    const model = await loadModelWith(backend, options.model, loadOptionsOf(options));
    const json = options.json === true;
    const result = await generateText(
      options,
      model,
      json ? () => {} : (piece) => process.stdout.write(piece),
    );
    console.log(json ? JSON.stringify(result) : "");
  });
}
