import { bar, figure, spreadOf } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { defaultZeroSettings, type ZeroSettings } from "../../src/parallel/zero/settings.ts";
import type { StateBytes } from "../../src/train/engine.ts";
import { type LlamaShape, llama30M } from "../harness/llama.ts";
import { type RankEngines, startRanks } from "./rank_engines.ts";

/** The bars of issue 4. */
const fourth = 0.25;
const allowedPadding = 0.01;
const leastSpeed = 0.9;
const leastHidden = 0.8;

function stage(number: ZeroSettings["stage"], more: Partial<ZeroSettings> = {}): ZeroSettings {
  return { ...defaultZeroSettings, stage: number, persistenceThreshold: 0, ...more };
}

const tiny: LlamaShape = { dim: 256, layers: 4, heads: 4, ffn: 704, vocabulary: 2048 };

/** What each of four ranks keeps of parameters, gradients and optimizer states, by stage. */
export async function measureStateBytes({ report, machine }: SuiteContext): Promise<void> {
  const bytes: StateBytes[] = [];
  for (const number of [0, 1, 2, 3] as const) {
    const ranks = await startRanks(4, machine.threads, {
      ...{ shape: tiny, dtype: "f32", rows: 1, length: 64 },
      zero: stage(number),
    });
    bytes.push(ranks.engines[0]!.stateBytes);
    ranks.close();
  }
  const [whole] = bytes as [StateBytes];
  const share = (number: number, kind: "parameters" | "gradients" | "optimizer"): number =>
    bytes[number]![kind] / whole[kind];
  const kinds = [
    ["optimizer", 1],
    ["gradients", 2],
    ["parameters", 3],
  ] as const;
  report({
    name: "bytes that a rank of four keeps, against stage 0",
    figures: kinds.flatMap(([kind, number]) => [
      figure(`${kind} at stage 0`, "bytes", whole[kind]),
      figure(`${kind} at stage ${number}, of stage 0's`, "share", share(number, kind)),
    ]),
    bars: kinds.map(([kind, number]) =>
      bar(
        `stage ${number} on 4 ranks: ${kind} beyond a fourth (padding)`,
        "share",
        "at most",
        allowedPadding,
        share(number, kind) / fourth - 1,
      ),
    ),
    notes: [],
  });
}

interface Contender {
  readonly name: string;
  readonly ranks: RankEngines;
  readonly seconds: number[];
  readonly losses: number[];
}

/** Takes turns, one step each, and requires the same losses of all. */
async function compare(contenders: readonly Contender[], rounds: number): Promise<void> {
  for (let round = 0; round <= rounds; round++) {
    for (const { ranks, seconds, losses } of contenders) {
      const { wallSeconds, loss } = await ranks.step();
      losses.push(loss);
      // The first step warms up.
      if (round > 0) seconds.push(wallSeconds);
    }
  }
  const [first, ...others] = contenders as [Contender, ...Contender[]];
  for (const { name, losses } of others) {
    if (losses.join() === first.losses.join()) continue;
    throw new Error(`${name} does not train the same: ${losses.join()} against ${first.losses.join()}`);
  }
}

/** Stage 3 against stage 0 on two ranks: the 30M model in bf16. */
export async function measureStageSpeed({ report, machine }: SuiteContext): Promise<void> {
  const training = { shape: llama30M, dtype: "bf16", rows: 4, length: 256, accumulation: 2 } as const;
  const contenders: Contender[] = [];
  for (const number of [0, 3] as const) {
    const ranks = await startRanks(2, machine.threads, { ...training, zero: stage(number) });
    contenders.push({ name: `stage ${number}`, ranks, seconds: [], losses: [] });
  }
  await compare(contenders, 8);
  const [zero, three] = contenders.map(({ seconds }) => spreadOf(seconds));
  const tokens = 2 * training.rows * training.length * training.accumulation;
  const ratio = zero!.median / three!.median;
  report({
    name: "30M parameters, bf16, 2 ranks of one machine",
    figures: [
      figure("step at stage 0", "seconds", zero!),
      figure("step at stage 3", "seconds", three!),
      figure("speed at stage 0", "tokens/s", tokens / zero!.median),
      figure("speed at stage 3", "tokens/s", tokens / three!.median),
      figure("stage 3 by stage 0", "ratio", ratio),
    ],
    bars: [bar("stage 3 against stage 0, 2 ranks: tokens/s", "ratio", "at least", leastSpeed, ratio)],
    notes: [],
  });
  for (const { ranks } of contenders) ranks.close();
}

/** The same over a link of 1 GB/s: with prefetch and overlap, with none, and over no link at all. */
export async function measureLink({ report, machine }: SuiteContext): Promise<void> {
  const training = { shape: llama30M, dtype: "bf16", rows: 4, length: 256, accumulation: 2 } as const;
  const link = { bandwidth: 1e9, latency: 50e-6 };
  const blocking = stage(3, { overlap: false, prefetchBucket: 0 });
  const contenders: Contender[] = [];
  for (const [name, zero, over] of [
    ["no link", stage(3), undefined],
    ["1 GB/s, overlapped", stage(3), link],
    ["1 GB/s, blocking", blocking, link],
  ] as const) {
    const ranks = await startRanks(2, machine.threads, { ...training, zero }, over);
    contenders.push({ name, ranks, seconds: [], losses: [] });
  }
  const overlapped = contenders[1]!.ranks;
  await compare(contenders, 8);
  const sent = overlapped.sentBytes() / 9;
  const [free, hidden, exposed] = contenders.map(({ seconds }) => spreadOf(seconds));
  const cost = exposed!.median - free!.median;
  const share = 1 - (hidden!.median - free!.median) / cost;
  report({
    name: "stage 3 of the 30M model, 2 ranks, over an emulated link of 1 GB/s",
    figures: [
      figure("step without a link", "seconds", free!),
      figure("step, overlapped", "seconds", hidden!),
      figure("step, blocking", "seconds", exposed!),
      figure("bytes that a rank sends in a step", "bytes", sent),
      figure("seconds of the link in a step", "seconds", sent / link.bandwidth),
      figure("part of the communication that is hidden", "share", share),
    ],
    bars: [bar("1 GB/s link: communication hidden", "share", "at least", leastHidden, share)],
    notes: ["hidden: of what blocking adds to a step without a link, the part that overlap takes away"],
  });
  for (const { ranks } of contenders) ranks.close();
}
