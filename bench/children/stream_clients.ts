/** Clients of a server, all streaming at once: URL MODEL CLIENTS TOKENS. Fails where an answer is incomplete. */
import { createAgent, streamCompletion } from "../load/stream_client.ts";

const [url, model, clients, tokens] = process.argv.slice(2) as [string, string, string, string];
const agent = createAgent();
const timelines = await Promise.all(
  Array.from({ length: Number(clients) }, (_, client) => {
    const prompt = Array.from(
      { length: 32 },
      (_, index) => 300 + ((client * 7919 + index * 104_729) % 30_000),
    );
    return streamCompletion({ url, model, extra: { ignore_eos: true } }, prompt, Number(tokens), agent);
  }),
);
agent.destroy();
const failed = timelines.find(
  ({ failure, tokens: count }) => failure !== undefined || count !== Number(tokens),
);
if (failed !== undefined) throw new Error(failed.failure ?? `an answer has ${failed.tokens} tokens`);
