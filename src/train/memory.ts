import { totalmem } from "node:os";
import { formatBytes } from "../base/bytes.ts";
import { RunError } from "../base/errors.ts";

/** A part of the memory that a run needs. */
export interface MemoryNeed {
  readonly what: string;
  readonly bytes: number;
  /** How to need less of it. */
  readonly hint: string;
}

/** The memory that this process may use: the machine's, or its container's where that is less. */
export function memoryLimit(): number {
  // Where nothing constrains the process this is 0 or more than any machine has.
  const constrained = process.constrainedMemory();
  return constrained > 0 ? Math.min(totalmem(), constrained) : totalmem();
}

/**
 * Checks that what a run needs fits in memory: a system that hands out more than it has kills the process when
 * it touches it.
 * @throws RunError `out_of_memory` with every need, and what to do about the largest.
 */
export function requireMemory(needs: readonly MemoryNeed[], limit = memoryLimit()): void {
  const total = needs.reduce((sum, { bytes }) => sum + bytes, 0);
  if (total <= limit) return;
  const largest = needs.reduce((most, need) => (need.bytes > most.bytes ? need : most));
  const parts = needs.map(({ what, bytes }) => `${formatBytes(bytes)} of ${what}`);
  throw new RunError("out_of_memory", "the run does not fit in memory", {
    expected: `at most ${formatBytes(limit)}, which this machine has`,
    received: needs.length === 1 ? parts[0]! : `${formatBytes(total)}: ${parts.join(", ")}`,
    hint: largest.hint,
  });
}
