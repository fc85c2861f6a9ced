/** How fast a prompt of 512 tokens is read. */
import { bar, figure } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { interleave } from "../harness/interleave.ts";
import { LimitMeter, limitFigures } from "../harness/limits.ts";
import { llama246M } from "../harness/random_gguf.ts";
import { weightsRead } from "../harness/serving_model.ts";
import type { PeerProcess } from "../peers/peer_process.ts";
import { type MeasuredEngine, someTokens, write } from "./engines.ts";

const length = 512;

/** Measures reading a prompt that is in no cache, to its first token. */
export async function measurePrompt(
  context: SuiteContext,
  measured: MeasuredEngine,
  llama: PeerProcess | undefined,
): Promise<void> {
  const meter = new LimitMeter(context.machine);
  let asked = 0;
  const ours = async (repetitions: number): Promise<number[]> => {
    const seconds: number[] = [];
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const started = performance.now() / 1000;
      // Another prompt each time: nothing is found in the prefix cache.
      const { times } = await write(measured.engine, someTokens(1000 + asked++, length), 1);
      seconds.push(times[0]! - started);
    }
    return seconds;
  };
  const peers =
    llama === undefined
      ? []
      : [
          {
            name: "llama.cpp",
            run: async (repetitions: number) =>
              (await llama.request({ task: "prompt", tokens: someTokens(1, length), repetitions })).seconds,
          },
        ];
  const { spreads, failures } = await interleave([{ name: "ours", run: ours }, ...peers], {
    rounds: 6,
    seconds: 4,
    between: meter.sample,
  });
  const reason = failures.get("ours");
  if (reason !== undefined) throw new Error(reason);
  const time = spreads.get("ours")!;
  const other = spreads.get("llama.cpp");
  const title = `Q8_0 prompt of ${length} tokens`;
  // The output projection is computed for the last token only.
  const { dim, vocabulary } = llama246M;
  const operations = 2 * length * (weightsRead() - dim * vocabulary);
  context.report({
    name: title,
    figures: [
      figure("time to the first token", "seconds", time),
      figure("speed", "tokens/s", length / time.median),
      ...(other === undefined
        ? []
        : [
            figure("llama.cpp: time", "seconds", other),
            figure("llama.cpp: speed", "tokens/s", length / other.median),
          ]),
      figure("integer products", "FLOP/s", operations / time.median),
      ...limitFigures(context.machine, meter.limits),
    ],
    bars: [
      bar(
        `${title}: against node-llama-cpp`,
        "ratio",
        "at least",
        4,
        other === undefined ? undefined : other.median / time.median,
        failures.get("llama.cpp") ?? (llama === undefined ? "the peer is absent" : undefined),
      ),
    ],
    notes: [],
  });
}
