import { createInterface } from "node:readline";
import type { PeerRequest } from "./protocol.ts";

/** Answers each request of standard input on a line of standard output, in order, until there are no more. */
export async function answerRequests(
  answer: (request: PeerRequest) => Promise<Record<string, unknown>>,
): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    const request = JSON.parse(line) as PeerRequest & { readonly id: number };
    let reply: Record<string, unknown>;
    try {
      reply = { ok: true, ...(await answer(request)) };
    } catch (fault) {
      reply = { ok: false, error: fault instanceof Error ? fault.message : String(fault) };
    }
    process.stdout.write(`${JSON.stringify({ id: request.id, ...reply })}\n`);
  }
}
