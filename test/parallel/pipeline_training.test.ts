import { describe, expect, test } from "vitest";
import { type PipelineTraining, type TrainingOutcome, trainPipeline } from "./pipeline_training.ts";

/** Pipelines of native ranks against one process, through the engine: losses, norms, updates and evaluation. */

const alone = new Map<string, Promise<TrainingOutcome>>();

function trainAlone(options: Omit<PipelineTraining, "mesh">): Promise<TrainingOutcome> {
  const { pipeline: _, zero: __, trace: ___, ...rest } = options;
  const key = JSON.stringify({ ...rest, frozen: rest.frozen?.toString() });
  const known = alone.get(key) ?? trainPipeline({ ...rest, mesh: {} });
  alone.set(key, known);
  return known;
}

function relative(actual: number, expected: number): number {
  return Math.abs(actual - expected) / Math.abs(expected);
}

async function expectAsAlone(options: PipelineTraining): Promise<TrainingOutcome> {
  const { mesh: _, ...rest } = options;
  const expected = await trainAlone({
    ...rest,
    accumulation: (rest.accumulation ?? 4) * (options.mesh.data ?? 1),
  });
  const outcome = await trainPipeline(options);
  outcome.losses.forEach((loss, step) => {
    expect(relative(loss, expected.losses[step]!)).toBeLessThan(1e-5);
    expect(relative(outcome.norms[step]!, expected.norms[step]!)).toBeLessThan(1e-4);
  });
  for (const [name, values] of outcome.parameters) {
    const known = expected.parameters.get(name)!;
    let [error, size] = [0, 0];
    values.forEach((value, index) => {
      error += (value - known[index]!) ** 2;
      size += known[index]! ** 2;
    });
    expect(Math.sqrt(error / size), name).toBeLessThan(1e-4);
  }
  return outcome;
}

describe("a pipeline trains as one process does", () => {
  test.each([
    [2, { schedule: "gpipe" }],
    [2, { schedule: "1f1b" }],
    [2, { schedule: "zero_bubble" }],
    [2, { schedule: "interleaved", chunks: 2 }],
    [4, { schedule: "1f1b" }],
    [4, { schedule: "gpipe", twoStageBackward: true }],
  ] as const)("%i stages, %o", async (pipeline, settings) => {
    await expectAsAlone({ mesh: { pipeline }, pipeline: settings });
  });

  test("with a tied embedding, held and updated alike by the first and the last stage", async () => {
    const { held } = await expectAsAlone({ mesh: { pipeline: 3 }, tied: true });
    const embedding = "model.embed_tokens.weight";
    expect(held.map((names) => names.includes(embedding))).toEqual([true, false, true]);
  });

  test("with blocks that do not divide among the stages, and fewer micro-batches than stages", async () => {
    const { held } = await expectAsAlone({ mesh: { pipeline: 4 }, layers: 5, accumulation: 2 });
    const all = held.flat();
    expect(new Set(all).size).toBe(all.length);
    await expectAsAlone({ mesh: { pipeline: 2 }, layers: 3, accumulation: 1 });
  });

  test("with frozen parameters", async () => {
    const frozen = (name: string): boolean => name.includes("layers.0") || name.includes("embed");
    await expectAsAlone({ mesh: { pipeline: 2 }, frozen, pipeline: { twoStageBackward: true } });
  });

  test.each(["every_k", "budget"] as const)("with activations computed again: %s", async (mode) => {
    const recompute =
      mode === "every_k" ? ({ mode, every: 2 } as const) : ({ mode, bytes: 190_000 } as const);
    await expectAsAlone({ mesh: { pipeline: 2 }, layers: 5, recompute });
    await expectAsAlone({
      mesh: { pipeline: 2 },
      layers: 5,
      recompute,
      pipeline: { schedule: "zero_bubble" },
    });
  });

  test.each([0, 1, 2, 3] as const)("beside data ranks, ZeRO stage %i", async (stage) => {
    const zero = { stage };
    await expectAsAlone({ mesh: { pipeline: 2, data: 2 }, accumulation: 2, tied: true, zero });
  });

  test("beside tensor ranks, and beside sequence ranks", async () => {
    await expectAsAlone({ mesh: { pipeline: 2, tensor: 2 }, tied: true, kvHeads: 2 });
    await expectAsAlone({ mesh: { pipeline: 2, sequence: 2 }, kvHeads: 2 });
  });
});

describe("backward in two stages changes no bit", () => {
  test.each([
    ["gpipe", 1],
    ["1f1b", 1],
    ["interleaved", 2],
  ] as const)("of %s", async (schedule, chunks) => {
    const options = { mesh: { pipeline: 2 }, tied: true } as const;
    const whole = await trainPipeline({ ...options, pipeline: { schedule, chunks } });
    const halves = await trainPipeline({
      ...options,
      pipeline: { schedule, chunks, twoStageBackward: true },
    });
    expect(halves.losses).toEqual(whole.losses);
    expect(halves.norms).toEqual(whole.norms);
    expect(halves.parameters).toEqual(whole.parameters);
  });
});
