/** `slipstream bench serve --url`: one load on a server that is running, ours or another. */
import { figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import type { LoadCommandOptions } from "../../src/cli/commands/bench.ts";
import { runLoad } from "./run_load.ts";
import { type LoadSummary, type Percentiles, summarize } from "./summary.ts";
import { evenLengths, planWorkload, readLengths } from "./workload.ts";

/** The mixed load of the benchmarks: prompts of 32 to 512 tokens, answers of 16 to 128. */
export const mixedLengths = evenLengths(512, [32, 512], [16, 128], 3);

/** The figures of a load, in the order in which people ask. */
export function loadFigures(summary: LoadSummary): ReturnType<typeof figure>[] {
  const three = (name: string, values: Percentiles | undefined): ReturnType<typeof figure>[] =>
    values === undefined
      ? []
      : (["p50", "p95", "p99"] as const).map((key) => figure(`${name}, ${key}`, "seconds", values[key]));
  return [
    figure("answer tokens", "tokens/s", summary.outputTokensPerSecond),
    figure("requests served a second", "per second", summary.requestsPerSecond),
    figure("goodput: requests a second within the target", "per second", summary.goodput),
    figure("requests within the target", "share", summary.good / summary.requests),
    figure("failed requests", "count", summary.failed),
    ...three("time to first token", summary.firstToken),
    ...three("time per output token", summary.perToken),
    ...three("gap between pieces", summary.gap),
    ...three("end to end", summary.endToEnd),
  ];
}

/** Loads a running server and reports what became of the requests. */
export async function driveServer(context: SuiteContext, options: LoadCommandOptions): Promise<void> {
  const { url, model, apiKey, rate, requests, seed, vocabulary } = options;
  const lengths = options.lengths === undefined ? mixedLengths : await readLengths(options.lengths);
  const workload = planWorkload({
    lengths,
    requests,
    rate,
    seed,
    vocabulary,
    firstToken: Math.min(300, vocabulary >> 1),
  });
  const target = { url, model, ...(apiKey === undefined ? {} : { apiKey }) };
  const timelines = await runLoad(target, workload);
  const latency = { firstToken: options.targetFirst, perToken: options.targetToken };
  const summary = summarize(timelines, latency);
  context.report({
    name: `${requests} requests to ${url}, ${rate} a second`,
    figures: loadFigures(summary),
    bars: [],
    notes: [
      `target: first token within ${latency.firstToken} s, ${latency.perToken} s a token after it`,
      ...summary.failures,
    ],
  });
}
