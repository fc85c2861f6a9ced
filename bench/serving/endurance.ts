/** Ten thousand requests on one server: its memory must not grow. */
import { readFileSync } from "node:fs";
import { bar, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import type { ChildServer } from "../harness/child_server.ts";
import { createAgent, streamCompletion } from "../load/stream_client.ts";
import { modelOf } from "./poisson.ts";

function residentBytes(pid: number): number {
  const kilobytes = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kilobytes) * 1024;
}

/** Sends requests to a server, 64 at a time, and looks at its resident memory. */
export async function measureEndurance(
  context: SuiteContext,
  server: ChildServer,
  vocabulary: number,
): Promise<void> {
  const total = 10_000;
  const target = { url: server.url, model: await modelOf(server), extra: { ignore_eos: true } };
  const agent = createAgent();
  const resident: { requests: number; bytes: number }[] = [];
  let sent = 0;
  let answered = 0;
  const client = async (): Promise<void> => {
    for (let index = sent++; index < total; index = sent++) {
      const prompt = Array.from(
        { length: 8 + (index % 25) },
        (_, at) => 3 + ((index * 31 + at * 17) % (vocabulary - 3)),
      );
      const { failure } = await streamCompletion(target, prompt, 4 + (index % 9), agent);
      if (failure !== undefined) throw new Error(`request ${index}: ${failure}`);
      answered++;
      if (answered % 1000 === 0) resident.push({ requests: answered, bytes: residentBytes(server.pid) });
    }
  };
  await Promise.all(Array.from({ length: 64 }, client));
  agent.destroy();
  const [first, last] = [resident[0]!.bytes, resident.at(-1)!.bytes];
  const title = "resident memory after 10,000 requests";
  context.report({
    name: title,
    figures: resident.map(({ requests, bytes }) => figure(`after ${requests}`, "bytes", bytes)),
    bars: [bar(`${title}: against after the first 1,000`, "ratio", "at most", 1.05, last / first)],
    notes: [],
  });
}
