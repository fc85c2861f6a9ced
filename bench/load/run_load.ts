import { setTimeout as pause } from "node:timers/promises";
import { createAgent, type ServerTarget, streamCompletion, type Timeline } from "./stream_client.ts";
import type { PlannedRequest } from "./workload.ts";

/**
 * Sends every request at its time, whether or not earlier ones are answered (open loop: a slow server does not
 * slow its users down), and waits for all.
 */
export async function runLoad(
  target: ServerTarget,
  workload: readonly PlannedRequest[],
): Promise<Timeline[]> {
  const agent = createAgent();
  const begin = performance.now();
  try {
    return await Promise.all(
      workload.map(async ({ arrival, prompt, output }) => {
        const wait = arrival * 1000 - (performance.now() - begin);
        if (wait > 0) await pause(wait);
        return await streamCompletion(target, prompt, output, agent);
      }),
    );
  } finally {
    agent.destroy();
  }
}
