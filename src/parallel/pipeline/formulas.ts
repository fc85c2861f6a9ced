import type { PipelineSchedule } from "./schedules.ts";

/** Seconds of a rank's programs for one micro-batch, all its stages together, where all ranks take alike. */
export interface StageSeconds {
  readonly forward: number;
  readonly inputGradient: number;
  readonly weightGradient: number;
}

/**
 * The part of all ranks' time in which they wait, by the papers' formulas for p ranks that take alike and m >= p
 * micro-batches, messages taking no time. With forward F, and backward B + W:
 *
 * - GPipe and 1F1B wait for (p-1)(F+B+W) (arXiv 1811.06965; 2104.04473, section 2.2), interleaved for that through the
 *   chunks;
 * - zero bubble (ZB-H1) for (p-1)(F+B-W) (arXiv 2401.10241, table 2);
 * - 2BP (arXiv 2405.18047) makes GPipe wait for (p-1)(F+B), since all of W is left to the end, and 1F1B for
 *   (p-1)(F+B-W): a rank waits for B p-1 times before its first backward, and after its last forward for F, W of which
 *   it uses.
 *
 * W is taken to be at most F, which is how long a gap is.
 */
export function bubbleByFormula(
  schedule: PipelineSchedule,
  ranks: number,
  microBatches: number,
  seconds: StageSeconds,
  options: { readonly twoStageBackward?: boolean; readonly chunks?: number } = {},
): number {
  const { forward, inputGradient, weightGradient } = seconds;
  const { twoStageBackward = false, chunks = 1 } = options;
  const busy = microBatches * (forward + inputGradient + weightGradient);
  const waits = (each: number): number => ((ranks - 1) * each) / ((ranks - 1) * each + busy);
  const inGaps = forward + inputGradient - Math.min(weightGradient, forward);
  switch (schedule) {
    case "gpipe":
      return waits(forward + inputGradient + (twoStageBackward ? 0 : weightGradient));
    case "1f1b":
      return waits(twoStageBackward ? inGaps : forward + inputGradient + weightGradient);
    case "interleaved":
      return waits((twoStageBackward ? inGaps : forward + inputGradient + weightGradient) / chunks);
    case "zero_bubble":
      return waits(inGaps);
  }
}
