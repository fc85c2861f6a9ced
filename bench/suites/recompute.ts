/**
 * Training 24 layers with activations kept or computed again: the memory of the program's values, the time of
 * a step, and that losses, gradient norms and weights stay the same to the last bit.
 */
import { type Bar, bar, type Figure, figure } from "../../src/cli/bench/measurement.ts";
import type { RunSuite } from "../../src/cli/bench/suite.ts";
import type { RecomputeSetting } from "../../src/compiler/recompute_policy.ts";
import type { TrainingEngine } from "../../src/train/engine.ts";
import { type Contestant, interleave } from "../harness/interleave.ts";
import { learningRate, randomBatch, startTraining } from "../harness/llama.ts";

const shape = { dim: 256, layers: 24, heads: 4, ffn: 704, vocabulary: 1024 };
const rows = 4;
const length = 512;

/** The bars of issue 2, for every block. */
const bars = { smaller: 4, slower: 1.35 } as const;

interface Trained {
  readonly name: string;
  readonly engine: TrainingEngine;
  readonly losses: number[];
  readonly norms: number[];
  readonly contestant: Contestant;
}

function arenaOf(engine: TrainingEngine): number {
  return engine.memory.arena;
}

/** @throws where a setting does not train exactly as the first one does. */
function requireSameBits(exact: Trained, other: Trained): void {
  const differs = (a: readonly number[], b: readonly number[]) => a.some((value, step) => value !== b[step]);
  if (differs(exact.losses, other.losses) || differs(exact.norms, other.norms)) {
    const lists = `${other.losses.join(", ")} instead of ${exact.losses.join(", ")}`;
    throw new Error(`recompute ${other.name} changes losses or gradient norms: ${lists}`);
  }
  const [weights, expected] = [other, exact].map(({ engine }) => engine.buffers.get("parameters")!);
  const bytes = (data: Float32Array) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (!bytes(weights!).equals(bytes(expected!))) {
    throw new Error(`recompute ${other.name} changes the weights after ${exact.losses.length} steps`);
  }
}

export const run: RunSuite = async ({ backend, report }) => {
  const batch = randomBatch(rows, length, shape.vocabulary, 4);
  const start = async (name: string, recompute: RecomputeSetting): Promise<Trained> => {
    const engine = await startTraining(backend, { shape, dtype: "bf16", rows, length, recompute });
    const losses: number[] = [];
    const norms: number[] = [];
    const step = async (steps: number): Promise<number[]> => {
      const seconds: number[] = [];
      for (let count = 0; count < steps; count++) {
        const result = await engine.step([batch], { learningRate });
        losses.push(result.loss);
        norms.push(result.gradientNorm);
        seconds.push(result.seconds);
      }
      return seconds;
    };
    return { name, engine, losses, norms, contestant: { name, run: step } };
  };
  const none = await start("none", { mode: "none" });
  const everyBlock = await start("every block", { mode: "every_k", every: 1 });
  const budget = Math.round((arenaOf(none.engine) + arenaOf(everyBlock.engine)) / 2);
  const all = [
    none,
    everyBlock,
    await start("square root", { mode: "sqrt" }),
    await start("budget", { mode: "budget", bytes: budget }),
  ];
  const result = await interleave(
    all.map(({ contestant }) => contestant),
    // A step each in turn: as many of each, so that their losses compare.
    { rounds: 4, seconds: 0 },
  );
  for (const [name, reason] of result.failures) throw new Error(`recompute ${name}: ${reason}`);
  for (const other of all.slice(1)) requireSameBits(none, other);

  const base = result.spreads.get("none")!;
  for (const { name, engine } of all) {
    const spread = result.spreads.get(name)!;
    const smaller = arenaOf(none.engine) / arenaOf(engine);
    const slower = spread.median / base.median;
    const figures: Figure[] = [
      figure("memory of values", "bytes", arenaOf(engine)),
      figure("step", "seconds", spread),
    ];
    if (name !== "none") {
      figures.push(figure("times smaller than none", "ratio", smaller));
      figures.push(figure("times as long as none", "ratio", slower));
    }
    const held: Bar[] = [];
    if (name === "every block") {
      held.push(
        bar("recompute of every block: memory of values", "ratio", "at least", bars.smaller, smaller),
      );
      held.push(bar("recompute of every block: time of a step", "ratio", "at most", bars.slower, slower));
    }
    if (name === "budget") {
      held.push(bar("recompute within a budget: memory", "bytes", "at most", budget, arenaOf(engine)));
    }
    const notes = name === "none" ? [] : [`bit-identical to none over ${none.losses.length} steps`];
    const sizes = `${shape.layers} layers of ${shape.dim}, ${rows} x ${length} tokens, bf16`;
    report({ name: `recompute ${name}: ${sizes}`, figures, bars: held, notes });
    engine.dispose();
  }
};
