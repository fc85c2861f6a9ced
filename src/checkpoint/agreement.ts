import { RunError, SlipstreamError } from "../base/errors.ts";
import type { ProcessGroup } from "../runtime/group.ts";

/** Ranks that tell each other what happened. */
export type Ranks = Pick<ProcessGroup, "rank" | "members" | "size" | "exchange">;

/** A single rank. */
export const alone: Ranks = { rank: 0, size: 1, members: [0], exchange: async (bytes) => [bytes] };

/** What one rank tells the others: a value, or what went wrong. */
type Message<Value> = { readonly value: Value } | { readonly failure: Failure };

interface Failure {
  readonly code: string;
  readonly message: string;
}

/**
 * Every rank's value, in the order of ranks. Where a rank failed, all of them throw: itself its own error, the others
 * a RunError that names the rank.
 * @param produce is awaited before the exchange; what it throws is told to the others
 */
export async function agree<Value>(group: Ranks, produce: () => Value | Promise<Value>): Promise<Value[]> {
  let own: Message<Value>;
  let thrown: unknown;
  try {
    own = { value: await produce() };
  } catch (error) {
    thrown = error;
    own = { failure: failureOf(error) };
  }
  const texts = await group.exchange(Buffer.from(JSON.stringify(own)));
  if ("failure" in own) throw thrown;
  return texts.map((text, rank) => {
    const message = JSON.parse(Buffer.from(text).toString()) as Message<Value>;
    if ("value" in message) return message.value;
    const { code, message: reason } = message.failure;
    throw new RunError(code, `rank ${group.members[rank]!} could not go on:\n${reason}`);
  });
}

function failureOf(error: unknown): Failure {
  const code = error instanceof SlipstreamError ? error.code : "rank_failed";
  return { code, message: error instanceof Error ? error.message : String(error) };
}
