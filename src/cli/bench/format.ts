import { type Bar, type BenchCase, type Figure, type Spread, type Unit, units } from "./measurement.ts";

/** Digits that tell values apart without pretending to more than was measured. */
function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  return value.toFixed(size >= 10 ? 1 : 2);
}

/** How values of a unit are printed: the factor, and what follows the number. */
function scaleFor(unit: Unit, value: number): readonly [factor: number, suffix: string] {
  const size = Math.abs(value);
  switch (unit) {
    case "seconds":
      if (size >= 1) return [1, " s"];
      return size >= 1e-3 ? [1e3, " ms"] : [1e6, " µs"];
    case "FLOP/s":
      return [1e-9, " GFLOP/s"];
    case "bytes":
      return [1 / 2 ** 20, " MiB"];
    case "bytes/s":
      return [1e-9, " GB/s"];
    case "tokens/s":
      return [1, " tokens/s"];
    case "per second":
      return [1, "/s"];
    case "ratio":
      return [1, "x"];
    case "share":
      return [100, "%"];
    case "nats":
      return [1, " nats"];
    case "count":
      return [1, ""];
    default:
      throw new RangeError(`${String(unit satisfies never)} is none of ${units.join(", ")}`);
  }
}

/** A value with its unit, such as `2.41 ms`. */
export function formatValue(unit: Unit, value: number): string {
  const [factor, suffix] = scaleFor(unit, value);
  return `${unit === "count" ? String(value) : digits(value * factor)}${suffix}`;
}

function formatSpread(unit: Unit, { median, low, high, count }: Spread): string {
  const [factor, suffix] = scaleFor(unit, median);
  return `${digits(median * factor)}${suffix} (${digits(low * factor)} to ${digits(high * factor)}, ${count} runs)`;
}

function formatFigure({ name, unit, value, spread }: Figure): string {
  return `${name} ${spread === undefined ? formatValue(unit, value) : formatSpread(unit, spread)}`;
}

/** A bar on one line: whether it is met, what it asks, and what was measured. */
export function formatBar({ measure, unit, direction, bound, value, status, reason }: Bar): string {
  const asked = `${direction} ${formatValue(unit, bound)}`;
  const found = value === undefined ? "" : `: ${formatValue(unit, value)}`;
  return `${status.padEnd(12)} ${measure}, ${asked}${found}${reason === undefined ? "" : ` (${reason})`}`;
}

/** A case as lines: its name, its figures, its bars and its notes. */
export function formatCase({ name, figures, bars, notes }: BenchCase): string {
  return [
    name,
    ...figures.map((one) => `    ${formatFigure(one)}`),
    ...bars.map((one) => `  ${formatBar(one)}`),
    ...notes.map((note) => `    note: ${note}`),
  ].join("\n");
}

/** Every bar of a run, and how many are met. */
export function formatBars(bars: readonly Bar[]): string {
  if (bars.length === 0) return "no bars: for information only";
  const met = bars.filter(({ status }) => status === "met").length;
  return [`${met} of ${bars.length} bars met`, ...bars.map((one) => `  ${formatBar(one)}`)].join("\n");
}
