import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadPieces, startSaving } from "../../src/checkpoint/index.ts";
import { bar, figure, spreadOf } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { parameterCount } from "../../src/train/setup.ts";
import { buildLlama, learningRate, randomBatch, startTraining } from "../harness/llama.ts";

/** A Llama of 250 million parameters. */
const shape = { dim: 1024, layers: 17, heads: 16, ffn: 2816, vocabulary: 16_384 };
const rows = 4;
const length = 256;
const steps = 3;
/** The bar of issue 4. */
const allowed = 1.2;

/** Steps of a 250M model while its checkpoint is written beside them, against steps alone. */
export async function measureCheckpoint({ report, backend }: SuiteContext): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "slipstream-bench-"));
  const engine = await startTraining(backend, { shape, dtype: "bf16", rows, length, accumulation: 4 });
  try {
    const batches = Array.from({ length: 4 }, (_, index) =>
      randomBatch(rows, length, shape.vocabulary, 4 + index),
    );
    const step = async (): Promise<number> => {
      const started = performance.now();
      await engine.step(batches, { learningRate });
      return (performance.now() - started) / 1000;
    };
    await step();
    const alone: number[] = [];
    const saving: number[] = [];
    const whole: number[] = [];
    for (let round = 0; round < steps; round++) {
      alone.push(await step());
      const before = engine.pieces()[0]!;
      const expected = new Float32Array(before.end - before.start);
      await before.read(0, expected);
      const began = performance.now();
      const { freeze, done } = await startSaving(
        folder,
        round,
        { pieces: engine.pieces(), state: {} },
        { keepLast: 1 },
      );
      engine.beforeUpdate = async () => {
        engine.beforeUpdate = undefined;
        await freeze();
      };
      saving.push(await step());
      const { folder: saved } = await done;
      whole.push((performance.now() - began) / 1000);
      const found = new Float32Array(expected.length);
      await loadPieces(saved, [
        { ...before, read: before.read, write: async (offset, from) => found.set(from, offset) },
      ]);
      if (found.some((value, index) => value !== expected[index]))
        throw new Error("the checkpoint does not hold the weights of its step");
    }
    const [plain, beside] = [spreadOf(alone), spreadOf(saving)];
    const bytes = engine.stateBytes;
    const ratio = beside.median / plain.median;
    report({
      name: `${parameterCount(buildLlama(shape).parameters)} parameters, a checkpoint of ${((bytes.parameters + bytes.optimizer) / 1e9).toFixed(1)} GB written beside a step`,
      figures: [
        figure("step alone", "seconds", plain),
        figure("step while a checkpoint is written", "seconds", beside),
        figure("until the checkpoint is complete", "seconds", spreadOf(whole)),
        figure("by the step alone", "ratio", ratio),
      ],
      bars: [
        bar("250M checkpoint, asynchronous: step time while saving", "ratio", "at most", allowed, ratio),
      ],
      notes: [],
    });
  } finally {
    engine.dispose();
    rmSync(folder, { recursive: true, force: true });
  }
}
