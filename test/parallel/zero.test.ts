import { describe, expect, test } from "vitest";
import { adagrad, adam, lion, type Optimizer, sgd } from "../../src/optim/optimizer.ts";
import { lockstepWorld } from "../support/lockstep.ts";
import { type TinyOutcome, type TinyTraining, trainTiny } from "./tiny_training.ts";

/** ZeRO in float64: what each stage computes is what one rank computes, whatever is divided. */

async function train(world: number, options: TinyTraining = {}): Promise<TinyOutcome> {
  return await trainTiny(await lockstepWorld({ data: world }), options);
}

function expectClose(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, index) => {
    expect(Math.abs(value - expected[index]!) / Math.abs(expected[index]!)).toBeLessThan(tolerance);
  });
}

describe.each([1, 2, 4])("%i ranks", (world) => {
  test.each([1, 2])("all stages equal one rank, accumulating %i", async (accumulation) => {
    const alone = await train(1, { accumulation: accumulation * world });
    let first: TinyOutcome | undefined;
    for (const stage of [0, 1, 2, 3] as const) {
      const outcome = await train(world, { accumulation, zero: { stage } });
      expectClose(outcome.losses, alone.losses, 1e-6);
      expectClose(outcome.norms, alone.norms, 1e-6);
      first ??= outcome;
      expect(outcome.losses).toEqual(first.losses);
      expect(outcome.norms).toEqual(first.norms);
      expect(outcome.parameters).toEqual(first.parameters);
      expect(outcome.evaluation).toBe(first.evaluation);
    }
  });
});

const optimizers: Record<string, Optimizer> = {
  adam: adam({ betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.01 }, false),
  sgd: sgd({ momentum: 0.9, nesterov: true, weight_decay: 0.01 }),
  lion: lion({ betas: [0.9, 0.99], weight_decay: 0.01 }),
  adagrad: adagrad({ eps: 1e-8, weight_decay: 0.01 }),
};

const cases: Record<string, TinyTraining> = {
  ...Object.fromEntries(Object.entries(optimizers).map(([name, optimizer]) => [name, { optimizer }])),
  "tied embeddings": { tied: true },
  "frozen parameters": { frozen: (name) => name.includes("embed") || name.includes("norm") },
  "clipping to a small norm": { clipping: 0.01 },
  "no clipping": { clipping: 0 },
  "whole small parameters only": { zero: { persistenceThreshold: 0 } },
  "no parameter in parts": { zero: { persistenceThreshold: 1e9 } },
  "no prefetch": { zero: { overlap: false } },
  "small buckets": { zero: { reduceBucket: 1, gatherBucket: 1, prefetchBucket: 500 } },
  "nothing gathered for long": { zero: { maximumLive: 1, maximumReuseDistance: 0 } },
  "everything gathered once": { zero: { maximumReuseDistance: 1e9 } },
};

test.each(Object.entries(cases))("stage 3 of two ranks with %s equals one rank", async (_name, options) => {
  const alone = await train(1, options);
  const { losses, norms, parameters } = await train(2, { ...options, zero: { ...options.zero, stage: 3 } });
  expectClose(losses, alone.losses, 1e-6);
  expectClose(norms, alone.norms, 1e-6);
  for (const [name, values] of parameters) {
    const expected = alone.parameters.get(name)!;
    // Lion follows signs: where a gradient is all but zero they may differ.
    const different = values.filter((value, index) => Math.abs(value - expected[index]!) > 1e-5).length;
    expect(different / values.length, name).toBeLessThan(options.optimizer?.op === "lion" ? 0.01 : 1e-9);
  }
});

const hierarchies: Record<string, TinyTraining["zero"]> = {
  "MiCS in pairs": { stage: 3, shardSize: 2 },
  "MiCS in pairs at stage 1": { stage: 1, shardSize: 2 },
  "MiCS of single ranks": { stage: 3, shardSize: 1 },
  "hpZ in pairs": { stage: 3, secondarySize: 2 },
  "hpZ in single ranks": { stage: 3, secondarySize: 1 },
  "hpZ in pairs, without prefetch": { stage: 3, secondarySize: 2, overlap: false },
};

test.each(Object.entries(hierarchies))("four ranks with %s equal one rank", async (_name, zero) => {
  const alone = await train(1);
  const { losses, norms, bytes } = await train(4, { zero: { ...zero, maximumReuseDistance: 0 } });
  expectClose(losses, alone.losses, 1e-6);
  expectClose(norms, alone.norms, 1e-6);
  for (const measured of bytes) expect(measured).toEqual(bytes[0]);
});

test("parts that do not fill a group are refused with those that do", async () => {
  await expect(train(4, { zero: { stage: 3, shardSize: 3 } })).rejects.toThrow(
    /a divisor of the 4 ranks over "data": 1, 2, 4/,
  );
});

test("frozen parameters stay as they are, in parts as well", async () => {
  const frozen = (name: string): boolean => name.includes("embed");
  const before = await train(2, { frozen, steps: 0, zero: { stage: 3 } });
  const after = await train(2, { frozen, steps: 2, zero: { stage: 3 } });
  for (const [name, values] of after.parameters) {
    if (frozen(name)) expect(values).toEqual(before.parameters.get(name));
    else expect(values).not.toEqual(before.parameters.get(name));
  }
});

test("an overflow on one rank skips the update of all, and the scale falls everywhere", async () => {
  const lossScale = {
    loss_scale: 0,
    // Gradients are stored as float32: only an infinite scale overflows them.
    initial_scale_power: 1024,
    loss_scale_window: 100,
    hysteresis: 1,
    consecutive_hysteresis: false,
    min_loss_scale: 1,
  };
  const { skipped, engines } = await train(2, { lossScale, steps: 2, zero: { stage: 2 } });
  expect(skipped).toEqual([true, true]);
  expect(engines.map(({ lossScale }) => lossScale!.skipped)).toEqual([2, 2]);
});

describe("what a rank keeps", () => {
  /** Elements of the tiny model's parameters, as the config says. */
  const shapes: number[] = [
    ...[50 * 24, 50 * 24, 24],
    ...[1, 2].flatMap(() => [24 * 24, 12 * 24, 12 * 24, 24 * 24, 41 * 24, 41 * 24, 24 * 41, 24, 24]),
  ];

  test.each([2, 4])("stages 1, 2 and 3 keep 1/%i of states, gradients and parameters", async (world) => {
    const whole = shapes.reduce((sum, size) => sum + Math.ceil(size / (16 * world)) * 16 * world, 0);
    const bytes = { whole: 4 * whole, part: (4 * whole) / world };
    const expected = [
      { parameters: bytes.whole, gradients: bytes.whole, optimizer: 2 * bytes.whole, residuals: 0 },
      { parameters: bytes.whole, gradients: bytes.whole, optimizer: 2 * bytes.part, residuals: 0 },
      { parameters: bytes.whole, gradients: bytes.part, optimizer: 2 * bytes.part, residuals: 0 },
      { parameters: bytes.part, gradients: bytes.part, optimizer: 2 * bytes.part, residuals: 0 },
    ];
    for (const stage of [0, 1, 2, 3] as const) {
      const outcome = await train(world, { steps: 0, zero: { stage, persistenceThreshold: 0 } });
      for (const measured of outcome.bytes) expect(measured).toEqual(expected[stage]);
    }
  });

  test("pieces cover every element of every parameter once over the ranks, and hold its values", async () => {
    const { engines, parameters } = await train(4, { steps: 1, zero: { stage: 3, persistenceThreshold: 0 } });
    for (const kind of ["parameters", "first_moment", "second_moment"]) {
      for (const [name, values] of parameters) {
        const found = new Float32Array(values.length).fill(Number.NaN);
        let covered = 0;
        for (const engine of engines) {
          const piece = engine
            .pieces()
            .find((candidate) => candidate.kind === kind && candidate.name === name)!;
          const part = new Float32Array(piece.end - piece.start);
          await piece.read(0, part);
          found.set(part, piece.start);
          covered += part.length;
        }
        expect(covered).toBe(values.length);
        if (kind === "parameters") expect(found).toEqual(values);
        expect(found.every(Number.isFinite)).toBe(true);
      }
    }
  });

  test("a piece that is written is what is read and gathered afterwards", async () => {
    const { engines } = await train(2, { steps: 0, zero: { stage: 3, persistenceThreshold: 0 } });
    const name = "model.norm.weight";
    for (const engine of engines) {
      const piece = engine
        .pieces()
        .find((candidate) => candidate.kind === "parameters" && candidate.name === name)!;
      for (let offset = 0; offset < piece.end - piece.start; offset += 5) {
        const length = Math.min(5, piece.end - piece.start - offset);
        await piece.write(
          offset,
          Float32Array.from({ length }, (_, index) => piece.start + offset + index),
        );
      }
    }
    const gathered = await Promise.all(engines.map((engine) => engine.gatherParameter(name)));
    const expected = Float32Array.from({ length: 24 }, (_, index) => index);
    for (const values of gathered) expect(values).toEqual(expected);
    for (const engine of engines)
      await engine.setParameter(
        name,
        expected.map((value) => 2 * value),
      );
    expect((await Promise.all(engines.map((engine) => engine.gatherParameter(name))))[1]).toEqual(
      expected.map((value) => 2 * value),
    );
    expect(() => engines[0]!.weights).toThrow(/does not hold the whole/);
  });
});
