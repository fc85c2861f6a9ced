/**
 * What the machine can do at best, measured beside every case: it differs from minute to minute where
 * processors change their clock and where others share them.
 */
import { dtypeCode } from "../../src/base/dtype.ts";
import type { MachineFacts } from "../../src/cli/bench/machine.ts";
import { type Figure, figure, type Spread, spreadOf } from "../../src/cli/bench/measurement.ts";
import { type IsaName, loadAddon, type NativeTensor } from "../../src/runtime/native/addon.ts";

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

/**
 * Measures the limits again and again while a case runs. The highest of each holds: a moment in which the
 * machine was taken away by others says nothing about what it can do.
 */
export class LimitMeter {
  readonly #machine: MachineFacts;
  readonly #iterations = { f32: 20_000, bf16: 20_000 };
  readonly #best = { f32: 0, bf16: 0, bandwidth: 0 };
  readonly #bandwidths: number[] = [];

  constructor(machine: MachineFacts) {
    this.#machine = machine;
  }

  /** The highest limits measured so far. */
  get limits(): Limits {
    return { ...this.#best };
  }

  /**
   * Bytes read a second, of all samples: on a machine whose memory others use too, a median of ours is to be held
   * against the median of what there was, not against the best moment.
   */
  get bandwidths(): Spread {
    return spreadOf(this.#bandwidths);
  }

  /** Measures every limit a few times; takes about a twentieth of a second. */
  readonly sample = (): void => {
    for (let run = 0; run < 2; run++) {
      this.#samplePeak("f32");
      this.#samplePeak("bf16");
      this.#sampleBandwidth();
    }
  };

  #samplePeak(dtype: "f32" | "bf16"): void {
    const operations = new Float32Array(1);
    const output = { data: operations, dtype: dtypeCode("f32"), shape: [1] };
    const attributes = [dtype === "bf16" ? 1 : 0, this.#iterations[dtype]];
    const milliseconds = this.#time("measure_peak", [], output, attributes);
    this.#best[dtype] = Math.max(this.#best[dtype], operations[0]! / (milliseconds / 1000));
    // About six milliseconds from the next run on.
    const factor = Math.min(Math.max(6 / milliseconds, 0.1), 100);
    this.#iterations[dtype] = Math.ceil(this.#iterations[dtype] * factor);
  }

  #sampleBandwidth(): void {
    bandwidthBuffer ??= new Uint8Array(loadAddon().allocate(bandwidthBytes)).fill(1);
    const input = { data: bandwidthBuffer, dtype: dtypeCode("u8"), shape: [bandwidthBytes] };
    const { threads } = this.#machine;
    const sums = { data: new Float32Array(threads), dtype: dtypeCode("f32"), shape: [threads] };
    const milliseconds = this.#time("measure_bandwidth", [input], sums, []);
    const bandwidth = bandwidthBytes / (milliseconds / 1000);
    this.#bandwidths.push(bandwidth);
    this.#best.bandwidth = Math.max(this.#best.bandwidth, bandwidth);
  }

  #time(
    kernel: string,
    inputs: readonly NativeTensor[],
    output: NativeTensor,
    attributes: readonly number[],
  ): number {
    const { isa, threads } = this.#machine;
    const started = performance.now();
    loadAddon().runKernel(kernel, isa as IsaName, inputs, [output], attributes, threads);
    return performance.now() - started;
  }
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
