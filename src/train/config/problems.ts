import { ConfigError } from "../../base/errors.ts";
import type { Override } from "./overrides.ts";
import type { ConfigPath, ConfigSource } from "./source.ts";

/** One thing that is wrong with a config. */
export interface ConfigProblem {
  /** The key at fault. */
  readonly path: ConfigPath;
  readonly summary: string;
  readonly expected?: string | undefined;
  readonly received?: string | undefined;
  readonly hint?: string | undefined;
  /** The key that was probably meant, where this one is unknown. */
  readonly meant?: string | undefined;
}

/** A problem with its place: `file:line:column` or the override that brought it. */
export interface LocatedProblem extends ConfigProblem {
  readonly where: string;
}

/** A config that cannot be used, with everything that is wrong with it. */
export class InvalidConfigError extends ConfigError {
  readonly problems: readonly LocatedProblem[];

  constructor(file: string, problems: readonly LocatedProblem[]) {
    const [first] = problems;
    if (problems.length === 1 && first !== undefined)
      super("bad_config", first.summary, definedDetails(first));
    else
      super("bad_config", `${file} has ${problems.length} problems\n${problems.map(paragraph).join("\n")}`);
    this.problems = problems;
  }
}

function definedDetails(problem: LocatedProblem): Record<string, string> {
  const { where, expected, received, hint } = problem;
  const details = Object.entries({ where, expected, received, hint });
  return Object.fromEntries(details.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

function paragraph(problem: LocatedProblem): string {
  const lines = [`- ${problem.where}  ${problem.summary}`];
  if (problem.expected !== undefined) lines.push(`    expected: ${problem.expected}`);
  if (problem.received !== undefined) lines.push(`    received: ${problem.received}`);
  if (problem.hint !== undefined) lines.push(`    to do:    ${problem.hint}`);
  return lines.join("\n");
}

/** Problems with their places, in the file's order, those of overrides last. */
export function locateProblems(
  problems: readonly ConfigProblem[],
  source: ConfigSource,
  overrides: readonly Override[],
): LocatedProblem[] {
  const placed = problems.map((problem) => {
    const section = problem.path.slice(0, -1);
    const inFile = valueAt(source.data, section) !== undefined;
    const override =
      overrides.findLast((each) => covers(each.path, problem.path)) ??
      // A key that is missing from a section which only overrides made.
      overrides.findLast((each) => !inFile && covers(each.path, section));
    if (override !== undefined) {
      return { problem: { ...problem, where: `--set ${override.text}` }, order: Number.MAX_SAFE_INTEGER };
    }
    const { line, column } = source.locate(problem.path);
    return {
      problem: { ...problem, where: `${source.file}:${line}:${column}` },
      order: line * 100_000 + column,
    };
  });
  return placed.sort((a, b) => a.order - b.order).map((each) => each.problem);
}

/** Whether an override set the key at fault, something inside it, or the section around it. */
function covers(override: ConfigPath, path: ConfigPath): boolean {
  const [short, long] = override.length < path.length ? [override, path] : [path, override];
  return short.length > 0 && short.every((part, i) => String(part) === String(long[i]));
}

/** A value in words: short ones as they are, long ones by what they are. */
export function describeValue(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "nothing (an empty value)";
  if (Array.isArray(value)) {
    const plain = value.length <= 4 && value.every((each) => each === null || typeof each !== "object");
    return plain ? `the list ${JSON.stringify(value)}` : `a list of ${value.length}`;
  }
  if (typeof value === "object") {
    const keys = Object.keys(value);
    return keys.length === 0 ? "an empty section" : `a section with ${keys.slice(0, 4).join(", ")}`;
  }
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  const text = JSON.stringify(value);
  return typeof value === "string"
    ? `the text ${text.length > 60 ? `${text.slice(0, 57)}..."` : text}`
    : text;
}

/** The value at a path of plain data, or undefined where there is none. */
export function valueAt(data: unknown, path: ConfigPath): unknown {
  let value = data;
  for (const part of path) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, part)) return undefined;
    value = Reflect.get(value, part);
  }
  return value;
}
