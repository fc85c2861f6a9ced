import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import type { OffloadSettings } from "../../src/train/offload/settings.ts";
import { type LlamaShape, randomBatch, startTraining } from "../harness/llama.ts";
import { residentBytes } from "../harness/resident.ts";
import type { FloatDType } from "../harness/tensors.ts";

/** What to train in a process of its own. */
export interface OffloadCase {
  readonly shape: LlamaShape;
  readonly dtype: FloatDType;
  readonly rows: number;
  readonly length: number;
  readonly accumulation: number;
  readonly steps: number;
  readonly recomputeEvery?: number;
  readonly offload?: OffloadSettings;
}

/** What came of it; bytes of memory are undefined where the system does not tell. */
export interface OffloadResult {
  readonly losses: readonly number[];
  readonly tokensPerSecond: number;
  readonly stepSeconds: number;
  readonly base: number | undefined;
  readonly peak: number | undefined;
  readonly arena: number;
  readonly prepared: number;
  /** Bytes moved from and to disk in the timed steps. */
  readonly diskBytes: number;
}

const training = JSON.parse(process.argv[2]!) as OffloadCase;
const { shape, dtype, rows, length, accumulation, steps, recomputeEvery, offload } = training;
const base = residentBytes("VmRSS");
const engine = await startTraining(createNativeBackend(), {
  ...{ shape, dtype, rows, length, accumulation },
  ...(recomputeEvery === undefined ? {} : { recompute: { mode: "every_k", every: recomputeEvery } }),
  ...(offload === undefined ? {} : { offload }),
});
const batches = Array.from({ length: accumulation }, (_, index) =>
  randomBatch(rows, length, shape.vocabulary, 17 + index),
);
const moved = (): number => (engine.diskTraffic?.readBytes ?? 0) + (engine.diskTraffic?.writtenBytes ?? 0);
const losses: number[] = [];
let started = performance.now();
let before = moved();
for (let step = 0; step <= steps; step++) {
  // The first step is not timed.
  if (step === 1) [started, before] = [performance.now(), moved()];
  losses.push((await engine.step(batches, { learningRate: 1e-3 })).loss);
}
const seconds = (performance.now() - started) / 1000 / Math.max(1, steps);
const result: OffloadResult = {
  losses,
  tokensPerSecond: (rows * length * accumulation) / seconds,
  stepSeconds: seconds,
  base,
  peak: residentBytes("VmHWM"),
  arena: engine.memory.arena,
  prepared: engine.memory.prepared,
  diskBytes: moved() - before,
};
console.log(JSON.stringify(result));
engine.dispose();
