/**
 * Training a Llama of 30 million parameters on 8 x 256 random tokens with AdamW, step by step in turn with
 * PyTorch: bf16 (PyTorch: autocast) and float32. One batch is repeated, so that its loss must fall.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { bar, type Figure, figure, spreadOf } from "../../src/cli/bench/measurement.ts";
import type { RunSuite, SuiteContext } from "../../src/cli/bench/suite.ts";
import type { StepResult, TrainingEngine } from "../../src/train/engine.ts";
import { parameterCount } from "../../src/train/setup.ts";
import { type Contestant, interleave } from "../harness/interleave.ts";
import { LimitMeter, limitFigures, peakName } from "../harness/limits.ts";
import { buildLlama, learningRate, llama30M, randomBatch, startTraining } from "../harness/llama.ts";
import { type Peers, withPeers } from "../harness/peers.ts";
import type { FloatDType } from "../harness/tensors.ts";

const rows = 8;
const length = 256;

/** The bars of issue 2. */
const bars = {
  bf16: { speed: 3, utilisation: 0.3 },
  f32: { speed: 1.5 },
  outsideKernels: 0.03,
  eventLoopDelay: 0.02,
};

/**
 * @throws where training does not learn: with small random weights the first loss is that of a uniform guess,
 * ln(vocabulary), and on a repeated batch it falls in every step.
 */
export function checkLosses(losses: readonly number[], vocabulary: number): void {
  const uniform = Math.log(vocabulary);
  const listed = losses.map((loss) => loss.toFixed(4)).join(", ");
  if (Math.abs(losses[0]! - uniform) > 0.02 * uniform) {
    throw new Error(`the first loss is not ln(${vocabulary}) = ${uniform.toFixed(4)}: ${listed}`);
  }
  const rising = losses.findIndex((loss, step) => step > 0 && !(loss < losses[step - 1]!));
  if (rising >= 0) throw new Error(`the loss of a repeated batch rose in step ${rising + 1}: ${listed}`);
}

interface OurSteps {
  readonly engine: TrainingEngine;
  readonly results: StepResult[];
  readonly delays: ReturnType<typeof monitorEventLoopDelay>;
  readonly run: (steps: number) => Promise<number[]>;
}

async function ourSteps({ backend }: SuiteContext, dtype: FloatDType): Promise<OurSteps> {
  const engine = await startTraining(backend, { shape: llama30M, dtype, rows, length });
  const batch = randomBatch(rows, length, llama30M.vocabulary, 4);
  const results: StepResult[] = [];
  const delays = monitorEventLoopDelay({ resolution: 1 });
  const run = async (steps: number): Promise<number[]> => {
    const seconds: number[] = [];
    for (let step = 0; step < steps; step++) {
      delays.enable();
      const result = await engine.step([batch], { learningRate });
      delays.disable();
      results.push(result);
      seconds.push(result.seconds);
    }
    return seconds;
  };
  return { engine, results, delays, run };
}

async function measure(context: SuiteContext, dtype: FloatDType, peers: Peers): Promise<void> {
  const { machine } = context;
  const ours = await ourSteps(context, dtype);
  const peerLosses: number[] = [];
  const contestants: Contestant[] = [{ name: "Slipstream", run: ours.run }];
  const { torch } = peers;
  if (torch !== undefined) {
    contestants.push({
      name: torch.name,
      run: async (steps) => {
        const request = { task: "train", threads: machine.threads, dtype, config: llama30M, steps } as const;
        const answer = await torch.request({
          ...request,
          batch: rows,
          sequence: length,
          learning_rate: learningRate,
        });
        peerLosses.push(...answer.losses);
        return answer.seconds;
      },
    });
  }
  const meter = new LimitMeter(machine);
  // A step each in turn; the first ones warm up.
  const result = await interleave(contestants, { rounds: 6, seconds: 0, between: meter.sample });
  const failure = result.failures.get("Slipstream");
  if (failure !== undefined) throw new Error(failure);
  const losses = ours.results.map(({ loss }) => loss);
  checkLosses(losses, llama30M.vocabulary);
  const notes = [...result.failures].map(([name, reason]) => `${name} failed: ${reason}`);
  if (peerLosses.length > 0) checkLosses(peerLosses.slice(0, losses.length), llama30M.vocabulary);
  if (dtype === "f32" && peers.blasWarning !== undefined) notes.push(peers.blasWarning);

  const { limits } = meter;
  const step = result.spreads.get("Slipstream")!;
  const tokens = rows * length;
  const utilisation = ours.engine.modelFlops / step.median / limits[dtype];
  const warm = ours.results.slice(1);
  const outside = spreadOf(warm.map(({ seconds, kernelSeconds }) => (seconds - kernelSeconds) / seconds));
  const delay = ours.delays.percentile(99) / 1e9;
  const peerStep = result.spreads.get("PyTorch");
  const ratio = peerStep === undefined ? undefined : peerStep.median / step.median;
  const figures: Figure[] = [
    figure("step", "seconds", step),
    figure("speed", "tokens/s", tokens / step.median),
    figure(`model FLOPs utilisation of the measured ${peakName(machine, dtype)}`, "share", utilisation),
    figure("time outside kernels", "share", outside),
    figure("event loop delay, 99th percentile", "seconds", delay),
    figure("first loss", "nats", losses[0]!),
    figure(`loss after ${losses.length - 1} steps`, "nats", losses.at(-1)!),
  ];
  if (peerStep !== undefined && ratio !== undefined) {
    figures.push(figure("PyTorch's step", "seconds", peerStep));
    figures.push(figure("PyTorch's speed", "tokens/s", tokens / peerStep.median));
    figures.push(figure("times as fast as PyTorch", "ratio", ratio));
  }
  figures.push(...limitFigures(machine, limits));
  const absent = ratio === undefined ? "PyTorch was not measured" : undefined;
  const name = `${dtype} training`;
  const peak = peakName(machine, dtype);
  context.report({
    name: `${dtype}, ${parameterCount(buildLlama(llama30M).parameters)} parameters, ${rows} x ${length} tokens`,
    figures,
    bars: [
      bar(`${name}: speed against PyTorch`, "ratio", "at least", bars[dtype].speed, ratio, absent),
      ...(dtype === "bf16"
        ? [
            bar(
              `${name}: model FLOPs utilisation of the ${peak}`,
              "share",
              "at least",
              bars.bf16.utilisation,
              utilisation,
            ),
          ]
        : []),
      bar(`${name}: time outside kernels`, "share", "at most", bars.outsideKernels, outside.median),
      bar(`${name}: event loop delay`, "seconds", "at most", bars.eventLoopDelay, delay),
    ],
    notes,
  });
  ours.engine.dispose();
}

export const run: RunSuite = async (context) => {
  await withPeers({ torch: true }, context.note, async (peers) => {
    for (const dtype of ["bf16", "f32"] as const) {
      await measure(context, dtype, peers);
      await peers.torch?.request({ task: "forget" }).catch(() => {});
    }
  });
};
