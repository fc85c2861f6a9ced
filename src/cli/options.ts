import { type Command, InvalidArgumentError } from "commander";
import { ConfigError } from "../base/errors.ts";

/** A parser of an option that takes an integer from `low` to `high`. */
export function integerFrom(low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^[+-]?\d+$/.test(text.trim()) && value >= low && value <= high) return value;
    const range = high === Number.MAX_SAFE_INTEGER ? `${low} or more` : `from ${low} to ${high}`;
    throw new InvalidArgumentError(`Expected an integer, ${range}.`);
  };
}

/** A parser of an option that takes a number from `low` to `high`; `openLow` leaves `low` itself out. */
export function numberFrom(low: number, high: number, openLow = false): (text: string) => number {
  return (text) => {
    const value = Number(text);
    const above = openLow ? value > low : value >= low;
    if (text.trim() !== "" && Number.isFinite(value) && above && value <= high) return value;
    const start = openLow ? `above ${low}` : `from ${low}`;
    throw new InvalidArgumentError(
      high === Number.POSITIVE_INFINITY
        ? `Expected a number ${openLow ? start : `${low} or more`}.`
        : `Expected a number ${start} ${openLow ? "and up " : ""}to ${high}.`,
    );
  };
}

/** Token ids as a list: `1,2,3`. */
export function parseIds(text: string): number[] {
  const pieces = text.split(",").map((piece) => piece.trim());
  const wrong = pieces.find((piece) => !/^\d+$/.test(piece) || !Number.isSafeInteger(Number(piece)));
  if (wrong === undefined) return pieces.map(Number);
  throw new InvalidArgumentError(
    `Expected token ids separated by commas, such as 1,2,3; ${JSON.stringify(wrong)} is not one.`,
  );
}

/** Adds one `path.to.key=value` to those given before. */
export function collectOverride(text: string, previous: readonly string[]): string[] {
  if (/^[^=\s]+=/.test(text)) return [...previous, text];
  throw new InvalidArgumentError(
    "Expected path.to.key=value, such as optimizer.params.lr=3e-4, without spaces around the equals sign.",
  );
}

/** Refuses options of which exactly one must be given, where none is. */
export function requireOneOf(
  given: readonly (readonly [flag: string, value: unknown])[],
  purpose: string,
): void {
  if (given.some(([, value]) => value !== undefined)) return;
  throw new ConfigError("missing_option", `${purpose} is missing`, {
    expected: given.map(([flag]) => flag).join(" or "),
  });
}

/** Adds `--trace FILE` to a command that runs programs. */
export function addTraceOption(command: Command): Command {
  return command.option(
    "--trace <FILE>",
    "write a timeline of every program and kernel to FILE, for https://ui.perfetto.dev",
  );
}

/** Options of every command that runs programs. */
export interface TraceOption {
  /** Where to write a timeline, if anywhere. */
  readonly trace?: string;
}
