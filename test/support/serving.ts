import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Tokenizer } from "../../src/data/index.ts";
import type { Model } from "../../src/models/index.ts";
import type { EngineSettings } from "../../src/serve/engine/options.ts";
import { Engine, type GenerateRequest, type Generation, type Piece } from "../../src/serve/index.ts";

const root = join(fileURLToPath(import.meta.url), "../../..");

/** A small trained Llama that may be absent. */
export const storyFolder = join(root, "../shared/data/stories260K");

/** A tiny random model with PyTorch's golden values. */
export function goldenFolder(family: string): string {
  return join(root, "test/golden/models", family);
}

/** A tokenizer whose token `id` is the character of code `id + offset`: texts are ids made readable. */
export function letterTokenizer(vocabularySize: number, offset = 32): Tokenizer {
  return {
    vocabularySize,
    identity: "letters",
    encode: (text) => [...text].map((character) => character.codePointAt(0)! - offset),
    decode: (ids) => Array.from(ids, (id) => String.fromCodePoint(id + offset)).join(""),
    tokenToId: (token) => token.codePointAt(0)! - offset,
    idToToken: (id) => (id < vocabularySize ? String.fromCodePoint(id + offset) : undefined),
    files: {},
  };
}

/** An engine on a model, with a tokenizer of letters and no token that ends texts unless given. */
export function createEngine(
  model: Model,
  settings: EngineSettings & { readonly tokenizer?: Tokenizer; readonly endTokens?: readonly number[] } = {},
): Promise<Engine> {
  const tokenizer = settings.tokenizer ?? letterTokenizer(model.facts.vocabularySize);
  return Engine.create({ endTokens: [], ...settings, model, tokenizer, modelName: "test" });
}

/** All pieces of a request. */
export async function piecesOf(generation: Generation): Promise<Piece[]> {
  const pieces: Piece[] = [];
  for await (const piece of generation) pieces.push(piece);
  return pieces;
}

/** What the answers of a request came to. */
export interface Answered {
  readonly tokens: number[];
  readonly text: string;
  readonly finishReason: string | undefined;
  readonly stopReason: string | number | undefined;
  readonly error: string | undefined;
}

/** Runs a request to its end; its answers by index. */
export async function answersOf(engine: Engine, request: GenerateRequest): Promise<Answered[]> {
  const answers: Answered[] = [];
  for (const piece of await piecesOf(engine.generate(request))) {
    const before = answers[piece.index];
    answers[piece.index] = {
      tokens: [...(before?.tokens ?? []), ...piece.tokens],
      text: (before?.text ?? "") + piece.text,
      finishReason: piece.finishReason,
      stopReason: piece.stopReason,
      error: piece.error,
    };
  }
  return answers;
}

/** The greedy tokens of each prompt, all in the engine at once. */
export async function greedyTokens(
  engine: Engine,
  prompts: readonly (readonly number[])[],
  maxTokens: number,
): Promise<number[][]> {
  const answers = await Promise.all(
    prompts.map((prompt) => answersOf(engine, { prompt, maxTokens, temperature: 0, ignoreEos: true })),
  );
  return answers.map(([answer]) => answer!.tokens);
}
