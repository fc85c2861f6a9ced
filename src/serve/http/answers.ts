import type {
  FinishReason,
  GenerateRequest,
  Generation,
  Piece,
  ServingEngine,
  TokenLogprob,
} from "../engine/types.ts";
import { ApiError } from "./errors.ts";
import type { EventStream } from "./event_stream.ts";
import type { Exchange } from "./exchange.ts";

/** Nobody is left to answer: the client went away, or read nothing for too long. */
export class ClientGone extends Error {}

/** Starts every request, or none. @throws what the engine throws */
export function startAll(
  engine: ServingEngine,
  requests: readonly GenerateRequest[],
  exchange: Exchange,
): Generation[] {
  try {
    return requests.map((request) => engine.generate({ ...request, signal: exchange.signal }));
  } catch (error) {
    exchange.abort();
    throw error;
  }
}

function checkEnd(piece: Piece, exchange: Exchange): void {
  if (piece.finishReason === "error") {
    throw new ApiError(500, piece.error ?? "the model failed", { code: "engine_error" });
  }
  if (piece.finishReason !== "abort") return;
  if (exchange.signal.aborted) throw new ClientGone();
  throw new ApiError(503, "the answer was cut off: the server is shutting down", { code: "aborted" });
}

/**
 * Hands on every piece of every generation as it comes, and waits where the stream has no room. Counts tokens for
 * the log.
 * @throws ApiError where an answer failed, and then no more pieces come; ClientGone
 */
export async function pump(
  generations: readonly Generation[],
  exchange: Exchange,
  take: (generation: number, piece: Piece) => void,
  stream?: EventStream,
): Promise<void> {
  let failed = false;
  const follow = async (generation: Generation, which: number): Promise<void> => {
    for await (const piece of generation) {
      if (failed) return;
      checkEnd(piece, exchange);
      exchange.answerTokens += piece.tokens.length;
      take(which, piece);
      if (stream?.full === true && !(await stream.room())) throw new ClientGone();
    }
  };
  try {
    await Promise.all(generations.map(follow));
  } catch (error) {
    failed = true;
    exchange.abort();
    throw error;
  }
}

/** A whole answer. */
export interface Answer {
  text: string;
  logprobs: TokenLogprob[];
  finishReason: FinishReason;
  stopReason: string | number | undefined;
}

/** Waits for every answer: `answers` of each generation, in order. @throws ApiError, ClientGone */
export async function collect(
  generations: readonly Generation[],
  answers: number,
  exchange: Exchange,
): Promise<Answer[]> {
  const results = Array.from(
    { length: generations.length * answers },
    (): Answer => ({ text: "", logprobs: [], finishReason: "stop", stopReason: undefined }),
  );
  await pump(generations, exchange, (which, piece) => {
    const answer = results[which * answers + piece.index]!;
    answer.text += piece.text;
    if (piece.logprobs !== undefined) answer.logprobs.push(...piece.logprobs);
    if (piece.finishReason !== undefined) answer.finishReason = piece.finishReason;
    answer.stopReason = piece.stopReason ?? answer.stopReason;
  });
  return results;
}

/** Token counts as OpenAI reports them. */
export function usage(generations: readonly Generation[], exchange: Exchange): object {
  const prompt = generations.reduce((sum, generation) => sum + generation.prompt.length, 0);
  const cached = generations.reduce((sum, generation) => sum + generation.cachedTokens, 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: exchange.answerTokens,
    total_tokens: prompt + exchange.answerTokens,
    prompt_tokens_details: { cached_tokens: cached },
  };
}
