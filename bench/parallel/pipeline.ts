/**
 * How long the ranks of a pipeline wait, under each schedule, against what the papers' formulas say.
 *
 * Four stages do not run side by side on two cores. So the stages' programs are measured alone, with real kernels,
 * and are then played: a run takes just as long and computes nothing. The ranks, the runner, the schedule, the
 * buffers and the messages between ranks are the real ones, timed by the clock. The formulas are about stages that take
 * alike, and these are of the same blocks: each kind of program is played with the median over the stages. Before
 * that, every schedule computes one step with real kernels, whose losses and gradients must agree to the last bit.
 * Where there are two cores for it, two stages run with real kernels side by side as well.
 */
import { createNativeBackend } from "../../src/backends.ts";
import type { TensorData } from "../../src/base/dtype.ts";
import { maximumElements } from "../../src/base/shape.ts";
import { bar, figure, spreadOf } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { type Graph, leavesOf, typeOf } from "../../src/graph/graph.ts";
import { scheduleTable } from "../../src/parallel/pipeline/choose.ts";
import { cutPipeline, type PipelineCut, type StageProgram } from "../../src/parallel/pipeline/cut.ts";
import { bubbleByFormula } from "../../src/parallel/pipeline/formulas.ts";
import { partitionBlocks } from "../../src/parallel/pipeline/partition.ts";
import type { PipelineSchedule } from "../../src/parallel/pipeline/schedules.ts";
import type { Backend } from "../../src/runtime/backend.ts";
import { createLocalWorld } from "../../src/runtime/native/local_world.ts";
import type { TrainingBatch } from "../../src/train/micro_batches.ts";
import { PipelineRunner } from "../../src/train/pipeline/runner.ts";
import { accumulateGraph, gradientName, type TrainedModel } from "../../src/train/programs.ts";
import { wholeProgram } from "../../src/train/sharding.ts";
import { buildLlama, randomBatch } from "../harness/llama.ts";
import { playedBackend } from "./played_backend.ts";

/** A vocabulary so small that the embedding and the loss weigh nothing beside two blocks: stages are alike. */
const shape = { dim: 512, layers: 8, heads: 8, ffn: 1408, vocabulary: 256 };
const tokens = 512;
const microBatches = 8;
const rounds = 5;

interface Contender {
  readonly name: string;
  readonly schedule: PipelineSchedule;
  readonly twoStageBackward: boolean;
}

const contenders: readonly Contender[] = [
  { name: "GPipe", schedule: "gpipe", twoStageBackward: false },
  { name: "GPipe with 2BP", schedule: "gpipe", twoStageBackward: true },
  { name: "1F1B", schedule: "1f1b", twoStageBackward: false },
  { name: "1F1B with 2BP", schedule: "1f1b", twoStageBackward: true },
  { name: "zero bubble (ZB-H1)", schedule: "zero_bubble", twoStageBackward: true },
];

/** A step of one schedule: how long the ranks waited, and what came out. */
interface Step {
  readonly seconds: number;
  readonly bubble: number;
  readonly loss: number;
  readonly gradients: ReadonlyMap<string, TensorData>;
}

class PipelineBench {
  readonly stages: number;
  readonly #model: TrainedModel;
  readonly #graph: Graph;
  readonly #cuts = new Map<boolean, PipelineCut>();
  readonly #batches: readonly TrainingBatch[];

  constructor(stages: number) {
    this.stages = stages;
    const { language, parameters } = buildLlama(shape);
    this.#model = { language, parameters, layout: { frozen: new Set() }, dtype: "f32" };
    this.#graph = accumulateGraph(this.#model, tokens, true);
    this.#batches = Array.from({ length: microBatches }, (_, index) =>
      randomBatch(1, tokens, shape.vocabulary, index + 1),
    );
  }

  cut(twoStageBackward: boolean): PipelineCut {
    const known = this.#cuts.get(twoStageBackward);
    if (known !== undefined) return known;
    const partition = partitionBlocks(this.#graph, this.stages, "uniform");
    const cut = cutPipeline(this.#graph, { partition, twoStageBackward, gradientName });
    this.#cuts.set(twoStageBackward, cut);
    return cut;
  }

  /**
   * Runs one step on ranks of this process.
   * @param backendOf a rank's backend; freed by who made it
   * @param warm runs a step before, which binds programs to their memory
   */
  async step(
    { schedule, twoStageBackward }: Contender,
    backendOf: (rank: number) => Backend,
    warm = false,
  ): Promise<Step> {
    const ranks = this.stages;
    const cut = this.cut(twoStageBackward);
    const worlds = createLocalWorld(ranks, { timeoutSeconds: 120 });
    const table = scheduleTable(schedule, { ranks, microBatches, chunks: 1, twoStageBackward });
    const gradients = new Map<string, TensorData>();
    const runners = worlds.map((world, rank) => {
      const backend = backendOf(rank);
      const bindings: Record<string, TensorData> = {};
      for (const name of cut.stages[rank]!.parameters) {
        const elements = maximumElements(this.#model.parameters.get(name)!.shape);
        bindings[name] = fillWeights(backend.allocate("f32", elements));
        bindings[gradientName(name)] = backend.allocate("f32", elements);
        gradients.set(name, bindings[gradientName(name)]!);
      }
      return new PipelineRunner({
        backend,
        pipeline: world,
        train: { cut, bind: wholeProgram(this.#graph).bind },
        evaluation: () => {
          throw new Error("nothing is evaluated here");
        },
        schedule: () => table,
        chunks: 1,
        compile: (graph) => backend.compile(graph),
        bindings,
        gradientName,
        modelFlops: 0,
      });
    });
    const run = () =>
      Promise.all(runners.map((runner) => runner.run(this.#batches, 1 / (tokens * microBatches))));
    if (warm) await run();
    for (const gradient of gradients.values()) gradient.fill(0);
    const started = performance.now();
    const results = await run();
    const seconds = (performance.now() - started) / 1000;
    for (const runner of runners) runner.dispose();
    for (const world of worlds) world.close();
    const busy = results.reduce((sum, { kernelSeconds }) => sum + kernelSeconds, 0);
    const loss = results.reduce((sum, result) => sum + result.loss, 0);
    return { seconds, bubble: 1 - busy / (seconds * ranks), loss, gradients };
  }

  /** Seconds of every program, measured alone: the best of a few runs, by its graph's name and the cut. */
  async measurePrograms(backend: Backend): Promise<Map<string, number>> {
    const seconds = new Map<string, number>();
    for (const twoStageBackward of [false, true]) {
      for (const { forward, backward, weightGradient } of this.cut(twoStageBackward).stages) {
        for (const program of [forward, backward, weightGradient]) {
          if (program === undefined) continue;
          seconds.set(`${twoStageBackward} ${program.graph.name}`, await this.#secondsOf(backend, program));
        }
      }
    }
    return seconds;
  }

  async #secondsOf(backend: Backend, { graph }: StageProgram): Promise<number> {
    const executable = backend.compile(graph);
    const [batch] = this.#batches as [TrainingBatch];
    const memory: Record<string, TensorData> = {};
    for (const [name, { attributes }] of leavesOf(graph)) {
      const data = backend.allocate(attributes.dtype, maximumElements(attributes.shape));
      memory[name] = attributes.dtype === "f32" ? fillWeights(data) : data;
    }
    for (const { name, value, target } of graph.outputs) {
      if (target === undefined)
        memory[name] = backend.allocate(typeOf(value).dtype, maximumElements(typeOf(value).shape));
    }
    const { targets, positions, offsets } = batch;
    const bindings = { ...memory, tokens: batch.tokens, targets, positions, offsets };
    const symbols = { tokens, offsets: offsets.length };
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 7; round++) {
      best = Math.min(best, (await executable.run(bindings, symbols)).kernelSeconds);
    }
    executable.dispose();
    return best;
  }
}

/** Small numbers, the same for every buffer of a length. */
function fillWeights(data: TensorData): TensorData {
  for (let index = 0; index < data.length; index++) data[index] = (((index * 7919) % 2003) - 1001) / 20_000;
  return data;
}

/** @throws where a schedule computes something else than another. */
function requireSame(name: string, step: Step, expected: Step): void {
  let same = step.loss === expected.loss;
  for (const [parameter, gradient] of expected.gradients) {
    const other = step.gradients.get(parameter)!;
    same &&= gradient.every((value: number, index: number) => value === other[index]);
  }
  if (!same)
    throw new Error(`${name} does not compute what 1F1B does: loss ${step.loss} and ${expected.loss}`);
}

/** Two stages with real kernels, one thread each. */
async function measureTwoStages(context: SuiteContext): Promise<void> {
  const bench = new PipelineBench(2);
  for (const contender of contenders.filter(({ schedule }) => schedule === "1f1b")) {
    const bubbles: number[] = [];
    const seconds: number[] = [];
    for (let round = 0; round < 2; round++) {
      const step = await withNativeRanks(2, (backends) =>
        bench.step(contender, (rank) => backends[rank]!, true),
      );
      bubbles.push(step.bubble);
      seconds.push(step.seconds);
    }
    context.report({
      name: `two stages with real kernels side by side: ${contender.name}`,
      figures: [figure("bubble", "share", spreadOf(bubbles)), figure("step", "seconds", spreadOf(seconds))],
      bars: [],
      notes: [],
    });
  }
}

async function withNativeRanks<T>(
  count: number,
  body: (backends: readonly Backend[]) => Promise<T>,
): Promise<T> {
  const backends = Array.from({ length: count }, () => createNativeBackend({ threads: 1, isolated: true }));
  try {
    return await body(backends);
  } finally {
    for (const backend of backends) backend.dispose();
  }
}

/** Measures the bubble of each schedule over four stages; see the head of this file for how. */
export async function measurePipeline(context: SuiteContext): Promise<void> {
  const bench = new PipelineBench(4);
  const oneForward = contenders.find(({ name }) => name === "1F1B")!;
  const expected = await withNativeRanks(4, (backends) => bench.step(oneForward, (rank) => backends[rank]!));
  for (const contender of contenders) {
    if (contender === oneForward) continue;
    const step = await withNativeRanks(4, (backends) => bench.step(contender, (rank) => backends[rank]!));
    requireSame(contender.name, step, expected);
  }
  const alone = await withNativeRanks(1, ([backend]) => bench.measurePrograms(backend!));
  const secondsOf = (twoStage: boolean, kind: string): number =>
    spreadOf(
      Array.from({ length: bench.stages }, (_, stage) => alone.get(`${twoStage} stage ${stage} ${kind}`)!),
    ).median;
  const halves = {
    forward: secondsOf(true, "forward"),
    inputGradient: secondsOf(true, "backward"),
    weightGradient: secondsOf(true, "weight_gradient"),
  };
  const ms = (seconds: number): string => (seconds * 1000).toFixed(1);
  context.note(
    `4 stages of 2 blocks, ${microBatches} micro-batches of ${tokens} tokens. Programs measured alone: forward ${ms(halves.forward)} ms, backward ${ms(secondsOf(false, "backward"))} ms, or ${ms(halves.inputGradient)} and ${ms(halves.weightGradient)} ms in two stages; then played by ranks that share no processor`,
  );
  const measured = new Map<string, number>();
  for (const contender of contenders) {
    const { name, schedule, twoStageBackward } = contender;
    const played = playedBackend(context.backend, (program) =>
      secondsOf(twoStageBackward, program.replace(/^stage \d+ /, "")),
    );
    const steps: Step[] = [];
    for (let round = 0; round < rounds; round++) steps.push(await bench.step(contender, () => played));
    // Whatever else the machine does only makes ranks wait longer: the least disturbed round tells most.
    const least = Math.min(...steps.map(({ bubble }) => bubble));
    const bubble = spreadOf(steps.map((step) => step.bubble));
    measured.set(name, least);
    const whole = {
      forward: secondsOf(false, "forward"),
      inputGradient: secondsOf(false, "backward"),
      weightGradient: 0,
    };
    const formula = bubbleByFormula(schedule, bench.stages, microBatches, twoStageBackward ? halves : whole, {
      twoStageBackward,
    });
    const off = Math.abs(least / formula - 1);
    const holds = schedule === "1f1b";
    context.report({
      name: `bubble of four stages: ${name}`,
      figures: [
        figure("bubble", "share", bubble),
        figure("bubble of the least disturbed round", "share", least),
        figure("the formula's", "share", formula),
        figure("step", "seconds", spreadOf(steps.map((step) => step.seconds))),
      ],
      bars: holds ? [bar(`${name}, 4 stages: bubble off the formula's`, "share", "at most", 0.1, off)] : [],
      notes: [],
    });
  }
  const ratio = measured.get("1F1B with 2BP")! / measured.get("1F1B")!;
  context.report({
    name: "2BP against 1F1B, 4 stages",
    figures: [figure("bubble with 2BP by that without", "ratio", ratio)],
    bars: [bar("2BP against 1F1B, 4 stages: bubble", "ratio", "at most", 1, ratio)],
    notes: [],
  });
  if (context.machine.cores >= 2) await measureTwoStages(context);
}
