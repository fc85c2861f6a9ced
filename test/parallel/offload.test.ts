import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { adagrad, lion, sgd } from "../../src/optim/optimizer.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { type OffloadSettings, offloadAll } from "../../src/train/offload/settings.ts";
import { lockstepWorld } from "../support/lockstep.ts";
import { type TinyOutcome, type TinyTraining, trainTiny } from "./tiny_training.ts";

/** States on disk train bit for bit as states in memory do. */

const folder = mkdtempSync(join(tmpdir(), "slipstream-offload-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const all: OffloadSettings = { ...offloadAll(folder), subGroup: 2048 };
const places: Record<string, OffloadSettings> = {
  "optimizer states": { ...all, parameters: false, gradients: false },
  "optimizer states and gradients": { ...all, parameters: false },
  parameters: { ...all, gradients: false, optimizer: false },
  everything: all,
  "everything, one thing at a time": { ...all, window: 0, subGroup: 512 },
  "everything, reading ahead of updates but not writing behind them": {
    ...all,
    updateWindow: { read: 2 ** 16, write: 0 },
    subGroup: 512,
  },
  "activations alone": {
    ...all,
    ...{ parameters: false, gradients: false, optimizer: false },
    ...{ spillBytes: 2 ** 22, spillsAlways: true },
  },
  "everything and activations": { ...all, spillBytes: 2 ** 22, spillsAlways: true },
};

async function train(options: TinyTraining): Promise<TinyOutcome> {
  const ranks = await lockstepWorld({});
  const backend = createNativeBackend({ threads: 2 });
  const outcome = await trainTiny(
    ranks.map(({ rank }) => ({ rank, backend })),
    options,
  );
  for (const engine of outcome.engines) engine.dispose();
  return outcome;
}

/** What a step writes to disk and reads, and its arena, in bytes. */
async function measureSpill(options: TinyTraining): Promise<{ moved: number; read: number; arena: number }> {
  const ranks = await lockstepWorld({});
  const backend = createNativeBackend({ threads: 2 });
  const outcome = await trainTiny(
    ranks.map(({ rank }) => ({ rank, backend })),
    options,
  );
  const [engine] = outcome.engines;
  const { writtenBytes, readBytes } = engine!.diskTraffic!;
  const { arena } = engine!.memory;
  engine!.dispose();
  return { moved: writtenBytes, read: readBytes, arena };
}

function expectSame(actual: TinyOutcome, expected: TinyOutcome): void {
  expect(actual.losses).toEqual(expected.losses);
  expect(actual.norms).toEqual(expected.norms);
  expect(actual.evaluation).toBe(expected.evaluation);
  expect(actual.parameters).toEqual(expected.parameters);
}

describe.each([1, 2])("accumulating %i micro-batches, over 50 steps", (accumulation) => {
  const options = { accumulation, steps: 50, clipping: 0.5 };
  const inMemory = train(options);
  test.each(Object.entries(places))("%s on disk", async (_, offload) => {
    expectSame(await train({ ...options, offload }), await inMemory);
  });
});

const cases: Record<string, TinyTraining> = {
  sgd: { optimizer: sgd({ momentum: 0.9, nesterov: true, weight_decay: 0.01 }) },
  lion: { optimizer: lion({ betas: [0.9, 0.99], weight_decay: 0.01 }) },
  adagrad: { optimizer: adagrad({ eps: 1e-8, weight_decay: 0.01 }) },
  "without clipping": { clipping: 0 },
  "tied embeddings": { tied: true, accumulation: 2 },
  "recomputed blocks": { recompute: { mode: "every_k", every: 1 }, accumulation: 2, layers: 3 },
  "frozen parameters": { frozen: (name) => name.includes("layers.0"), accumulation: 2 },
  "loss scaling": {
    dtype: "f16",
    lossScale: {
      loss_scale: 0,
      initial_scale_power: 20,
      loss_scale_window: 3,
      hysteresis: 1,
      consecutive_hysteresis: false,
      min_loss_scale: 1,
    },
    steps: 8,
  },
  "bf16 activations": { dtype: "bf16", accumulation: 2 },
};

test.each(Object.entries(cases))("everything on disk: %s", async (_, options) => {
  expectSame(await train({ ...options, offload: all }), await train(options));
});

test("a copy of the parameters in bf16 changes no bit of a training in bf16", async () => {
  const options: TinyTraining = { dtype: "bf16", accumulation: 2, steps: 10 };
  const exact = await train(options);
  expectSame(await train({ ...options, offload: { ...all, halfParameters: true } }), exact);
});

test("activations leave memory between forward and backward, and come back once", async () => {
  const sizes = { layers: 6, model: { hidden_size: 64, intermediate_size: 176 }, steps: 1 };
  const inMemory = { ...all, window: 2 ** 14, parameters: false, gradients: false, optimizer: false };
  const [kept, sent] = [
    await measureSpill({ ...sizes, offload: { ...inMemory, spillBytes: 2 ** 23 } }),
    await measureSpill({ ...sizes, offload: { ...inMemory, spillBytes: 2 ** 23, spillsAlways: true } }),
  ];
  expect(kept.moved).toBe(0);
  expect(sent.arena).toBeLessThan(0.7 * kept.arena);
  // What is read was written; nothing is written that is not read.
  expect(sent.read).toBe(sent.moved);
});

test("nothing is left on the disk", () => {
  expect(readdirSync(folder)).toEqual([]);
});
