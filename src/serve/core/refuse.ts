import type { CoreOptions, CoreRequest, Refusal } from "./types.ts";

/** Tokens of each sequence of a request at the most, its prompt included. */
export function maximumLength(request: CoreRequest, { maximumContext }: CoreOptions): number {
  return Math.min(request.prompt.length + request.maximumTokens, maximumContext);
}

/**
 * Why a request is not let in: what could never run comes before what cannot run now.
 * @param unplaced how many would find no room in the next step, with this request
 */
export function refuse(
  request: CoreRequest,
  options: CoreOptions,
  unplaced: () => number,
): Refusal | undefined {
  const { maximumContext, blocks, blockSize, maximumSequences, maximumWaiting } = options;
  const tokens = request.prompt.length;
  if (tokens >= maximumContext) return { kind: "context_length_exceeded", tokens, limit: maximumContext };
  // The last token of an answer is never computed.
  const needed = Math.ceil((maximumLength(request, options) - 1) / blockSize);
  if (needed > blocks) return { kind: "pool_too_small", blocks: needed, limit: blocks };
  if (request.answers > maximumSequences) {
    return { kind: "too_many_answers", answers: request.answers, limit: maximumSequences };
  }
  const without = unplaced();
  if (without <= maximumWaiting) return undefined;
  return { kind: "queue_full", waiting: without - 1, limit: maximumWaiting };
}
