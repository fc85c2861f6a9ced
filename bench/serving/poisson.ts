/** Goodput over HTTP: 32 places, Poisson arrivals, mixed lengths; our server, then node-llama-cpp's. */
import { fileURLToPath } from "node:url";
import { bar, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { type ChildServer, startServer } from "../harness/child_server.ts";
import { loadFigures, mixedLengths } from "../load/drive.ts";
import { runLoad } from "../load/run_load.ts";
import type { ServerTarget } from "../load/stream_client.ts";
import { type LatencyTarget, type LoadSummary, summarize } from "../load/summary.ts";
import { planWorkload } from "../load/workload.ts";

const launcher = fileURLToPath(new URL("../../bin/slipstream.js", import.meta.url));
const llamaServer = fileURLToPath(new URL("../peers/llama_server.ts", import.meta.url));

/** Requests that a server works on at once. */
export const places = 32;
/** What a person in a chat puts up with: two seconds, then at least five tokens a second. */
const target: LatencyTarget = { firstToken: 2, perToken: 0.2 };
/** Shares of the capacity at which goodput is looked for. */
const shares = [1.1, 0.95, 0.8, 0.65, 0.5, 0.35];

/** Our server on a file. */
export async function startOurs(file: string, threads: number): Promise<ChildServer> {
  return await startServer(
    [launcher, "serve", file, "--port", "0", "--precision", "bf16", "--max-sequences", String(places)],
    { SLIPSTREAM_THREADS: String(threads) },
  );
}

async function startPeer(file: string, threads: number): Promise<ChildServer> {
  return await startServer([
    llamaServer,
    file,
    ...["--threads", String(threads), "--sequences", String(places), "--context", String(places * 1024)],
  ]);
}

async function load(
  target_: ServerTarget,
  requests: number,
  rate: number,
  seed: number,
): Promise<LoadSummary> {
  const workload = planWorkload({
    lengths: mixedLengths,
    requests,
    rate,
    seed,
    vocabulary: 32_000,
    firstToken: 300,
  });
  return summarize(await runLoad(target_, workload), target);
}

/** The best of a server: its capacity, and the load at which most requests are served well. */
interface Outcome {
  readonly capacity: LoadSummary;
  readonly best: LoadSummary;
  readonly rate: number;
}

async function explore(server: ServerTarget, requests: number): Promise<Outcome> {
  // A few requests warm the server up.
  await load(server, 4, Infinity, 1);
  const capacity = await load(server, requests, Infinity, 2);
  let found: Outcome | undefined;
  for (const share of shares) {
    const rate = capacity.requestsPerSecond * share;
    const best = await load(server, requests, rate, 3);
    if (found === undefined || best.goodput > found.best.goodput) found = { capacity, best, rate };
    if (best.good === best.requests) break;
  }
  return found!;
}

function describe(context: SuiteContext, name: string, outcome: Outcome): void {
  context.report({
    name: `mixed load on ${name}`,
    figures: [
      figure("served a second when all come at once", "per second", outcome.capacity.requestsPerSecond),
      figure("answer tokens when all come at once", "tokens/s", outcome.capacity.outputTokensPerSecond),
      figure("rate of best goodput", "per second", outcome.rate),
      ...loadFigures(outcome.best),
    ],
    bars: [],
    notes: [
      `prompts of 32 to 512 tokens, answers of 16 to 128; target: first token within ${target.firstToken} s, ${target.perToken} s a token after it`,
      ...outcome.best.failures,
    ],
  });
}

/** Measures both servers, one after the other: each has the machine for itself. */
export async function measurePoisson(
  context: SuiteContext,
  file: string,
  peerPresent: boolean,
): Promise<void> {
  const { threads } = context.machine;
  const ours = await startOurs(file, threads);
  let mine: Outcome;
  try {
    mine = await explore({ url: ours.url, model: await modelOf(ours), extra: { ignore_eos: true } }, 96);
  } finally {
    await ours.close();
  }
  describe(context, "our server", mine);
  let other: Outcome | undefined;
  if (peerPresent) {
    const peer = await startPeer(file, threads);
    try {
      other = await explore({ url: peer.url, model: "peer" }, 32);
    } finally {
      await peer.close();
    }
    describe(context, "node-llama-cpp", other);
  }
  const { perToken } = mine.best;
  const title = `${places} places, Poisson arrivals, mixed lengths`;
  context.report({
    name: title,
    figures: [],
    bars: [
      bar(
        `${title}: goodput against node-llama-cpp`,
        "ratio",
        "at least",
        4,
        other === undefined ? undefined : mine.best.goodput / other.best.goodput,
        other === undefined ? "the peer is absent" : undefined,
      ),
      bar(
        `${title}: p99 time per output token against the median`,
        "ratio",
        "at most",
        3,
        perToken === undefined ? undefined : perToken.p99 / perToken.p50,
      ),
    ],
    notes: [],
  });
}

/** The name under which a server serves its model. */
export async function modelOf(server: ChildServer): Promise<string> {
  const response = await fetch(`${server.url}/v1/models`);
  const { data } = (await response.json()) as { data: { id: string }[] };
  return data[0]!.id;
}
