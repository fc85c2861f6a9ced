import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { createNativeBackend } from "../../src/backends.ts";
import type { DType } from "../../src/base/dtype.ts";
import { familyOf, packSequences, readModelConfig, readWeights } from "../../src/models/index.ts";
import { ParameterSpace } from "../../src/nn/parameters.ts";
import { adam } from "../../src/optim/optimizer.ts";
import { type IsaName, loadAddon } from "../../src/runtime/native/addon.ts";
import { TrainingEngine } from "../../src/train/engine.ts";

const folder = join(dirname(fileURLToPath(import.meta.url)), "../golden/train_curve");

interface Curve {
  readonly optimizer: {
    readonly params: {
      readonly betas: [number, number];
      readonly eps: number;
      readonly weight_decay: number;
    };
  };
  readonly gradient_clipping: number;
  readonly batches: number[][][];
  readonly losses: number[];
  readonly gradient_norms: number[];
  readonly learning_rates: number[];
}

const curve = JSON.parse(readFileSync(join(folder, "curve.json"), "utf8")) as Curve;

async function makeEngine(dtype: DType, accumulationSteps: number, threads = 2, isa?: IsaName) {
  const { config, where } = await readModelConfig(folder);
  const family = familyOf(config, where);
  const space = ParameterSpace.create();
  const language = family.build(config, space, where);
  const rows = curve.batches[0]!.length;
  const engine = new TrainingEngine({
    backend: createNativeBackend({ threads, ...(isa === undefined ? {} : { isa }) }),
    language,
    parameters: space.table,
    dtype,
    optimizer: adam(curve.optimizer.params, true),
    microBatchTokens: (curve.batches[0]![0]!.length * rows) / accumulationSteps,
    microBatchRows: rows / accumulationSteps,
    accumulationSteps,
    gradientClipping: curve.gradient_clipping,
    decays: (name) => space.table.get(name)!.shape.length > 1,
    isFrozen: () => false,
    recompute: { mode: "none" },
  });
  const weights = engine.weights;
  await readWeights(folder, family, space.table, (name) => weights.get(name)!);
  engine.weightsChanged();
  const step = (index: number) => {
    const sequences = curve.batches[index]!;
    const size = rows / accumulationSteps;
    const batches = Array.from({ length: accumulationSteps }, (_, part) =>
      packSequences(sequences.slice(part * size, (part + 1) * size), language.facts),
    );
    return engine.step(batches, { learningRate: curve.learning_rates[index]! });
  };
  return { engine, step };
}

async function run(dtype: DType, accumulationSteps: number, threads = 2, isa?: IsaName) {
  const { engine, step } = await makeEngine(dtype, accumulationSteps, threads, isa);
  const results = [];
  for (let index = 0; index < curve.losses.length; index++) results.push(await step(index));
  return { engine, results };
}

test("50 steps of AdamW with clipping follow PyTorch's losses and gradient norms", async () => {
  const { results } = await run("f32", 1);
  results.forEach(({ loss, gradientNorm }, index) => {
    expect(Math.abs(loss - curve.losses[index]!) / curve.losses[index]!).toBeLessThan(1e-5);
    expect(Math.abs(gradientNorm - curve.gradient_norms[index]!) / curve.gradient_norms[index]!).toBeLessThan(
      1e-4,
    );
  });
});

test("the same seed gives the same bits, whatever the threads", async () => {
  const first = await run("f32", 1, 2);
  const second = await run("f32", 1, 3);
  expect(second.results.map((result) => result.loss)).toEqual(first.results.map((result) => result.loss));
  expect(second.results.map((result) => result.gradientNorm)).toEqual(
    first.results.map((result) => result.gradientNorm),
  );
  expect(second.engine.buffers.get("parameters")).toEqual(first.engine.buffers.get("parameters"));
});

test("accumulation over two micro-batches equals one batch", async () => {
  const whole = await makeEngine("f32", 1);
  const parts = await makeEngine("f32", 2);
  const a = await whole.step(0);
  const b = await parts.step(0);
  expect(Math.abs(a.loss - b.loss) / a.loss).toBeLessThan(1e-6);
  expect(Math.abs(a.gradientNorm - b.gradientNorm) / a.gradientNorm).toBeLessThan(1e-6);
});

// AMX runs on its software model here, so that the whole way to the tiles is tested on any AVX-512 machine.
const isas = ["scalar", "avx2", "avx512", "avx512bf16", "amx", "amx_emulated"] as const;
test.each(isas.filter((isa) => loadAddon().canRunIsa(isa)))(
  "bf16 stays within 1%% of float32 on %s",
  async (isa) => {
    const { results } = await run("bf16", 1, 2, isa);
    results.forEach(({ loss }, index) => {
      expect(Math.abs(loss - curve.losses[index]!) / curve.losses[index]!).toBeLessThan(0.01);
    });
  },
);
