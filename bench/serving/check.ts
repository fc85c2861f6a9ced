/** No speed is reported for wrong results: our engine must find llama.cpp's tokens as likely as llama.cpp does. */
import type { PeerProcess } from "../peers/peer_process.ts";
import { type MeasuredEngine, someTokens } from "./engines.ts";

/**
 * How much less likely (nats) than our best a token of the peer may be. The peer quantizes its activations,
 * we quantize ours and keep bf16 between: logits of these random weights (deviation about 0.6, the best of
 * 32,000 about 2.6 above the mean) differ by about 0.02; any token but one of the very best is off by more than 0.3.
 */
const slack = 0.2;

/** @throws naming the position where the two disagree. */
export async function checkAgainstPeer(
  { engine }: MeasuredEngine,
  llama: PeerProcess,
  type: string,
): Promise<void> {
  const prompt = [1, ...someTokens(77, 40)];
  const count = 12;
  const { tokens } = await llama.request({ task: "greedy", tokens: prompt, count });
  for (let position = 0; position < count; position++) {
    const soFar = [...prompt, ...tokens.slice(0, position)];
    for await (const piece of engine.generate({
      prompt: soFar,
      maxTokens: 1,
      temperature: 0,
      ignoreEos: true,
      logprobs: 20,
    })) {
      const [found] = piece.logprobs ?? [];
      if (found === undefined) continue;
      const theirs = found.top.find(({ token }) => token === tokens[position]);
      const gap = theirs === undefined ? Infinity : found.top[0]!.logprob - theirs.logprob;
      if (gap <= slack) continue;
      throw new Error(
        `${type}: llama.cpp writes ${tokens[position]} at position ${position}, which is ${gap} nats below our ${found.token}`,
      );
    }
  }
}
