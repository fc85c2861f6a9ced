/** Tokens a second of 1, 8 and 32 answers at once, beside llama.cpp and node-llama-cpp. */
import { bar, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { type Contestant, interleave } from "../harness/interleave.ts";
import { LimitMeter, limitFigures } from "../harness/limits.ts";
import { bitsOf, weightsRead } from "../harness/serving_model.ts";
import type { PeerProcess } from "../peers/peer_process.ts";
import { decodeSteps, type MeasuredEngine } from "./engines.ts";

const promptTokens = 64;

/** Which bars hold for a number of streams. */
const bars: Readonly<
  Record<number, { readonly batch?: number; readonly package?: number; readonly bandwidth?: number }>
> = {
  1: { batch: 1.15, package: 1.4, bandwidth: 0.7 },
  8: { batch: 2.2, package: 6 },
  32: { batch: 3 },
};

/** Measures one file with so many streams. */
export async function measureDecode(
  context: SuiteContext,
  measured: MeasuredEngine,
  llama: PeerProcess | undefined,
  type: "Q8_0" | "Q4_0",
  streams: number,
): Promise<void> {
  const steps = streams > 8 ? 24 : 48;
  const meter = new LimitMeter(context.machine);
  const peer = (name: string, api: "batch" | "package"): Contestant[] =>
    llama === undefined
      ? []
      : [
          {
            name,
            run: async () =>
              (await llama.request({ task: "decode", api, streams, prompt: promptTokens, steps })).seconds,
          },
        ];
  const { spreads, failures } = await interleave(
    [
      { name: "ours", run: async () => await decodeSteps(measured, streams, promptTokens, steps) },
      ...peer("llama.cpp", "batch"),
      ...peer("node-llama-cpp", "package"),
    ],
    { rounds: 6, seconds: 0, between: meter.sample },
  );
  const reason = failures.get("ours");
  if (reason !== undefined) throw new Error(reason);
  const ours = spreads.get("ours")!;
  const bytes = (weightsRead() * bitsOf[type]) / 8;
  const share = bytes / ours.median / meter.bandwidths.median;
  const ratioTo = (name: string): number | undefined => {
    const other = spreads.get(name);
    return other === undefined ? undefined : other.median / ours.median;
  };
  // Q4_0 has bars for one stream only.
  const wanted = type === "Q8_0" || streams === 1 ? bars[streams]! : {};
  const title = `${type} decode, ${streams} stream${streams === 1 ? "" : "s"}`;
  const absent = llama === undefined ? "the peer is absent" : undefined;
  const against = (name: string, bound: number | undefined) =>
    bound === undefined
      ? []
      : [
          bar(
            `${title}: against ${name}`,
            "ratio",
            "at least",
            bound,
            ratioTo(name),
            failures.get(name) ?? absent,
          ),
        ];
  context.report({
    name: title,
    figures: [
      figure("time of a step", "seconds", ours),
      figure("speed", "tokens/s", streams / ours.median),
      ...["llama.cpp", "node-llama-cpp"].flatMap((name) => {
        const other = spreads.get(name);
        if (other === undefined) return [];
        return [
          figure(`${name}: time of a step`, "seconds", other),
          figure(`${name}: speed`, "tokens/s", streams / other.median),
          figure(`ratio to ${name}`, "ratio", other.median / ours.median),
        ];
      }),
      figure("weights read", "bytes/s", bytes / ours.median),
      figure("memory bandwidth between the turns", "bytes/s", meter.bandwidths),
      figure("share of its median", "share", share),
      ...limitFigures(context.machine, meter.limits),
    ],
    bars: [
      ...against("llama.cpp", wanted.batch),
      ...against("node-llama-cpp", wanted.package),
      ...(wanted.bandwidth === undefined || type !== "Q8_0"
        ? []
        : [bar(`${title}: share of memory bandwidth`, "share", "at least", wanted.bandwidth, share)]),
    ],
    notes: [],
  });
}
