/** What benchmarks report: figures with their spread, and bars that are met or missed. */

/** What a figure counts; values are kept in base units (seconds, bytes, FLOP/s) and scaled when printed. */
export const units = [
  "seconds",
  "FLOP/s",
  "bytes",
  "bytes/s",
  "tokens/s",
  "per second",
  "ratio",
  "share",
  "nats",
  "count",
] as const;
export type Unit = (typeof units)[number];

/** The middle of repeated measurements and where the middle eighty per cent of them lie. */
export interface Spread {
  readonly median: number;
  /** The 10th percentile. */
  readonly low: number;
  /** The 90th percentile. */
  readonly high: number;
  /** How many measurements there were. */
  readonly count: number;
}

/** One number of a case. */
export interface Figure {
  readonly name: string;
  readonly unit: Unit;
  readonly value: number;
  /** Of repeated measurements; `value` is then their median. */
  readonly spread?: Spread;
}

/** What a number must reach, and whether it did. */
export interface Bar {
  /** What is measured, such as "bf16 1024: share of the AMX peak". */
  readonly measure: string;
  readonly unit: Unit;
  readonly direction: "at least" | "at most";
  readonly bound: number;
  /** Absent where it could not be measured; `reason` says why. */
  readonly value?: number;
  readonly status: "met" | "missed" | "not measured";
  readonly reason?: string;
}

/** One thing that was measured. */
export interface BenchCase {
  readonly name: string;
  readonly figures: readonly Figure[];
  readonly bars: readonly Bar[];
  /** What a reader must know to judge the figures, such as a peer's slow BLAS. */
  readonly notes: readonly string[];
}

/** The value at `fraction` (0 to 1) of sorted values, between neighbours where it falls between them. */
function quantile(sorted: readonly number[], fraction: number): number {
  const position = fraction * (sorted.length - 1);
  const below = sorted[Math.floor(position)]!;
  const above = sorted[Math.ceil(position)]!;
  return below + (above - below) * (position - Math.floor(position));
}

/** Median and spread of at least one measurement. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  return {
    median: quantile(sorted, 0.5),
    low: quantile(sorted, 0.1),
    high: quantile(sorted, 0.9),
    count: values.length,
  };
}

/** A figure from one number or from repeated measurements. */
export function figure(name: string, unit: Unit, value: number | Spread): Figure {
  return typeof value === "number"
    ? { name, unit, value }
    : { name, unit, value: value.median, spread: value };
}

/** A bar held against a value; `undefined`, with the reason, where it could not be measured. */
export function bar(
  measure: string,
  unit: Unit,
  direction: Bar["direction"],
  bound: number,
  value: number | undefined,
  reason?: string,
): Bar {
  const rest = { measure, unit, direction, bound, ...(reason === undefined ? {} : { reason }) };
  if (value === undefined) return { ...rest, status: "not measured" };
  const met = direction === "at least" ? value >= bound : value <= bound;
  return { ...rest, value, status: met ? "met" : "missed" };
}
