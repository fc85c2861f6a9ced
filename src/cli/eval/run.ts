import { readFile } from "node:fs/promises";
import { ConfigError, DataError, FileFormatError } from "../../base/errors.ts";
import { asReadError } from "../../checkpoint/index.ts";
import { checkTokenIds, checkVocabulary } from "../../data/index.ts";
import { loadModelTokenizer, loadModelWith, type Model } from "../../models/index.ts";
import { withBackend } from "../backend.ts";
import type { EvalCommandOptions } from "../commands/eval.ts";
import { loadOptionsOf } from "../options.ts";
import { batchWindows, cutWindows } from "./windows.ts";

/** Tokens of a program: enough to fill the machine. */
const tokensPerBatch = 2048;

function isIds(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((id) => typeof id === "number");
}

/** The documents of a JSON file of token ids. @throws FileFormatError where it holds something else. */
export function parseIdsFile(text: string, where: string): number[][] {
  const expected = "a list of token ids such as [1,2,3], or a list of such lists";
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FileFormatError("bad_json", `the file of token ids is not JSON: ${(cause as Error).message}`, {
      where,
      expected,
      cause,
    });
  }
  if (isIds(value)) return [value];
  if (Array.isArray(value) && value.every(isIds)) return value;
  throw new FileFormatError("bad_ids_file", "the file does not hold lists of token ids", { where, expected });
}

async function readText(path: string): Promise<string> {
  return await readFile(path, "utf8").catch((error: unknown) => {
    throw asReadError(error, path);
  });
}

async function readDocuments(options: EvalCommandOptions, model: Model): Promise<number[][]> {
  const { vocabularySize } = model.facts;
  if (options.idsFile !== undefined) {
    const documents = parseIdsFile(await readText(options.idsFile), options.idsFile);
    for (const ids of documents) checkTokenIds(ids, vocabularySize, options.idsFile);
    return documents;
  }
  const tokenizer = await loadModelTokenizer(options.model);
  checkVocabulary(tokenizer, vocabularySize);
  return [tokenizer.encode(await readText(options.text!))];
}

function chooseWindow(options: EvalCommandOptions, model: Model): number {
  const { maximumPositions } = model.facts;
  const window = options.window ?? Math.min(maximumPositions, tokensPerBatch);
  if (window <= maximumPositions) return window;
  throw new ConfigError("window_too_long", "the window is longer than the model's positions", {
    where: "--window",
    expected: `at most ${maximumPositions} tokens (max_position_embeddings)`,
    received: String(window),
  });
}

/** What `slipstream eval` prints. `tokens` counts predictions. */
export interface EvalResult {
  readonly loss: number;
  readonly perplexity: number;
  readonly tokens: number;
}

/** The mean next-token cross-entropy over all windows of all documents. */
export async function evaluate(
  model: Model,
  documents: readonly (readonly number[])[],
  window: number,
): Promise<EvalResult> {
  let sum = 0;
  let tokens = 0;
  const windows = documents.flatMap((ids) => cutWindows(ids, window));
  for (const batch of batchWindows(windows, Math.max(window, tokensPerBatch))) {
    const { loss, targets } = await model.loss(batch);
    sum += loss * targets;
    tokens += targets;
  }
  if (tokens === 0) {
    throw new DataError("no_targets", "there is nothing to predict", {
      expected: "at least two tokens",
      received: `${documents.flat().length}`,
    });
  }
  const loss = sum / tokens;
  return { loss, perplexity: Math.exp(loss), tokens };
}

/** Loads a model, predicts the text, and prints the result as JSON. */
export async function runEval(options: EvalCommandOptions): Promise<void> {
  await withBackend(options, async (backend) => {
    const model = await loadModelWith(backend, options.model, loadOptionsOf(options));
    const window = chooseWindow(options, model);
    console.log(JSON.stringify(await evaluate(model, await readDocuments(options, model), window)));
  });
}
