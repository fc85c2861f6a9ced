import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { loadAddon } from "../../runtime/native/addon.ts";
import { createNativeBackend } from "../../runtime/native/backend.ts";
import { packageVersion } from "../version.ts";

/** On what the numbers were measured. */
export interface MachineFacts {
  readonly slipstream: string;
  readonly node: string;
  readonly system: string;
  readonly processor: string;
  readonly cores: number;
  /** Bytes. */
  readonly memory: number;
  /** The instruction set that kernels use, and the highest that the processor has. */
  readonly isa: string;
  readonly detectedIsa: string;
  /** Threads that run kernels; peers get as many. */
  readonly threads: number;
}

/** The machine and how Slipstream runs on it. */
export function describeMachine(): MachineFacts {
  const { isa, threads } = createNativeBackend();
  return {
    slipstream: packageVersion(),
    node: process.versions.node,
    system: `${process.platform} ${process.arch} ${release()}`,
    processor: cpus()[0]?.model.trim() || "unknown",
    cores: availableParallelism(),
    memory: totalmem(),
    isa,
    detectedIsa: loadAddon().detectedIsa(),
    threads,
  };
}

/** Processes that ran or waited to run, on average over the last minute. */
export function loadAverage(): number {
  return loadavg()[0]!;
}

/** A warning where others use the machine enough to spoil the measurements, or undefined. */
export function busyWarning(load: number, cores: number): string | undefined {
  // A quarter of a core's time over a minute: what a terminal or an editor takes is well below it.
  if (load < 0.25 * Math.min(cores, 4)) return undefined;
  return (
    `warning: this machine is busy: on average ${load.toFixed(2)} processes were running on its ${cores} cores ` +
    "in the last minute; wait until it is idle, or take the numbers for a lower limit"
  );
}
