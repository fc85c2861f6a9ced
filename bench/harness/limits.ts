/**
 * What the machine can do at best, measured beside every case: it differs from minute to minute where
 * processors change their clock and where others share them.
 */
import { dtypeCode } from "../../src/base/dtype.ts";
import type { MachineFacts } from "../../src/cli/bench/machine.ts";
import { type Figure, figure } from "../../src/cli/bench/measurement.ts";
import { type IsaName, loadAddon } from "../../src/runtime/native/addon.ts";

/** The machine's limits with the threads and the instruction set in use. */
export interface Limits {
  /** FLOP/s of float32 multiply-adds. */
  readonly f32: number;
  /** FLOP/s of bf16 products added up in float32. */
  readonly bf16: number;
  /** Bytes read from memory a second. */
  readonly bandwidth: number;
}

/** Far more than the caches hold, so that it comes from memory. */
const bandwidthBytes = 256 * 2 ** 20;
let bandwidthBuffer: Uint8Array | undefined;

/** The best of a few runs that each take about `milliseconds`. */
function bestPeak(machine: MachineFacts, kind: 0 | 1, milliseconds = 10, runs = 4): number {
  const operations = new Float32Array(1);
  const output = { data: operations, dtype: dtypeCode("f32"), shape: [1] };
  const isa = machine.isa as IsaName;
  let iterations = 20_000;
  let best = 0;
  for (let run = 0; run < runs; run++) {
    const started = performance.now();
    loadAddon().runKernel("measure_peak", isa, [], [output], [kind, iterations], machine.threads);
    const elapsed = performance.now() - started;
    best = Math.max(best, operations[0]! / (elapsed / 1000));
    iterations = Math.ceil(iterations * Math.min(Math.max(milliseconds / elapsed, 0.1), 100));
  }
  return best;
}

function bestBandwidth(machine: MachineFacts, runs = 3): number {
  bandwidthBuffer ??= new Uint8Array(loadAddon().allocate(bandwidthBytes)).fill(1);
  const input = { data: bandwidthBuffer, dtype: dtypeCode("u8"), shape: [bandwidthBytes] };
  const sums = { data: new Float32Array(machine.threads), dtype: dtypeCode("f32"), shape: [machine.threads] };
  let best = 0;
  for (let run = 0; run < runs; run++) {
    const started = performance.now();
    const isa = machine.isa as IsaName;
    loadAddon().runKernel("measure_bandwidth", isa, [input], [sums], [], machine.threads);
    best = Math.max(best, bandwidthBytes / ((performance.now() - started) / 1000));
  }
  return best;
}

/** Measures the limits; takes about a tenth of a second. */
export function measureLimits(machine: MachineFacts): Limits {
  return { f32: bestPeak(machine, 0), bf16: bestPeak(machine, 1), bandwidth: bestBandwidth(machine) };
}

/** Runs a case with the limits measured before and after it; of each the higher one holds. */
export async function withLimits<Result>(
  machine: MachineFacts,
  body: () => Promise<Result>,
): Promise<{ result: Result; limits: Limits }> {
  const before = measureLimits(machine);
  const result = await body();
  const after = measureLimits(machine);
  const limits = {
    f32: Math.max(before.f32, after.f32),
    bf16: Math.max(before.bf16, after.bf16),
    bandwidth: Math.max(before.bandwidth, after.bandwidth),
  };
  return { result, limits };
}

/** Which unit sets the peak of a dtype: `AMX peak`, `AVX512-BF16 peak`, `float32 peak`. */
export function peakName(machine: MachineFacts, dtype: "f32" | "bf16"): string {
  if (dtype === "f32") return "float32 peak";
  if (machine.isa === "amx") return "AMX peak";
  if (machine.isa === "avx512bf16") return "AVX512-BF16 peak";
  return "float32 peak (no bf16 instructions)";
}

/** The measured limits as figures. */
export function limitFigures(machine: MachineFacts, limits: Limits): Figure[] {
  return [
    figure("measured float32 peak", "FLOP/s", limits.f32),
    figure(`measured ${peakName(machine, "bf16")} of bf16`, "FLOP/s", limits.bf16),
    figure("measured memory bandwidth", "bytes/s", limits.bandwidth),
  ];
}
