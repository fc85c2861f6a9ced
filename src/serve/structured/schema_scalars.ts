import { formatAutomaton, formatNames } from "./formats.ts";
import { type Bound, integerRange, jsonInteger, multiplesOf, numberRange } from "./numbers.ts";
import { choice, literal, type Pattern, repeat, sequence, setOf } from "./pattern.ts";
import type { PatternCache } from "./pattern_cache.ts";
import { excerpt, GrammarProblem } from "./problem.ts";
import { childPath } from "./schema_document.ts";
import { count, type Fact, type JsonType, largest, smallest, typesOf, wrong } from "./schema_facts.ts";
import { accepts, determinize, intersect, lengthAutomaton, type TextAutomaton } from "./text_automaton.ts";

/** What a string must be. */
export interface StringFacts {
  readonly minimum: number;
  readonly maximum: number;
  /** The automata of pattern and format, all of which must accept. */
  readonly automata: readonly TextAutomaton[];
}

const numberFormats = new Set(["float", "double", "int32", "int64"]);

/** @throws GrammarProblem for a pattern or format that is not supported */
export function stringFacts(facts: readonly Fact[], patterns: PatternCache): StringFacts {
  const automata: TextAutomaton[] = [];
  for (const fact of facts) {
    const { pattern, format } = fact.schema;
    if (pattern !== undefined) {
      const where = childPath(fact.path, "pattern");
      if (typeof pattern !== "string") throw wrong(where, "a regular expression", pattern);
      automata.push(at(where, () => patterns.search(pattern)));
    }
    if (format === undefined || numberFormats.has(format as string)) continue;
    const where = childPath(fact.path, "format");
    const automaton = typeof format === "string" ? formatAutomaton(format) : undefined;
    if (automaton === undefined) throw wrong(where, `one of ${formatNames.join(", ")}`, format);
    automata.push(automaton);
  }
  return { minimum: largest(facts, "minLength"), maximum: smallest(facts, "maxLength"), automata };
}

/** One automaton for patterns, formats and lengths. */
export function stringAutomaton(facts: StringFacts, path: string, patterns: PatternCache): TextAutomaton {
  return at(path, () => {
    let automaton = facts.automata.reduce((a, b) => intersect(a, b, patterns.budget));
    if (facts.minimum > 0 || facts.maximum < Number.POSITIVE_INFINITY) {
      const lengths = lengthAutomaton(facts.minimum, facts.maximum);
      automaton = intersect(automaton, lengths, patterns.budget);
    }
    return automaton;
  });
}

/** Runs `build`; a problem without a place gets this one. */
export function at<T>(path: string, build: () => T): T {
  try {
    return build();
  } catch (error) {
    throw error instanceof GrammarProblem ? error.at(path) : error;
  }
}

/** The tightest bounds that facts give numbers. */
export interface NumberFacts {
  readonly minimum: Bound | undefined;
  readonly maximum: Bound | undefined;
  readonly multiples: readonly number[];
}

function finite(fact: Fact, keyword: string): number | undefined {
  const value = fact.schema[keyword];
  if (value === undefined) return undefined;
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw wrong(childPath(fact.path, keyword), "a number", value);
  }
  return value;
}

export function numberFacts(facts: readonly Fact[]): NumberFacts {
  let minimum: Bound | undefined;
  let maximum: Bound | undefined;
  const multiples: number[] = [];
  const below = (bound: Bound) => {
    if (
      maximum === undefined ||
      bound.value < maximum.value ||
      (bound.value === maximum.value && bound.exclusive)
    ) {
      maximum = bound;
    }
  };
  const above = (bound: Bound) => {
    if (
      minimum === undefined ||
      bound.value > minimum.value ||
      (bound.value === minimum.value && bound.exclusive)
    ) {
      minimum = bound;
    }
  };
  for (const fact of facts) {
    for (const exclusive of [false, true]) {
      const low = finite(fact, exclusive ? "exclusiveMinimum" : "minimum");
      if (low !== undefined) above({ value: low, exclusive });
      const high = finite(fact, exclusive ? "exclusiveMaximum" : "maximum");
      if (high !== undefined) below({ value: high, exclusive });
    }
    const multiple = finite(fact, "multipleOf");
    if (multiple !== undefined && multiple !== 1) {
      if (!Number.isInteger(multiple) || multiple < 1 || multiple > 1000) {
        throw wrong(childPath(fact.path, "multipleOf"), "a whole number from 1 to 1000", multiple);
      }
      multiples.push(multiple);
    } else if (multiple === 1) multiples.push(1);
    const { format } = fact.schema;
    if (format === "int32") {
      above({ value: -(2 ** 31), exclusive: false });
      below({ value: 2 ** 31 - 1, exclusive: false });
    } else if (format === "int64") {
      above({ value: -(2 ** 63), exclusive: false });
      // The largest float64 below 2^63.
      below({ value: 2 ** 63 - 1024, exclusive: false });
    }
  }
  return { minimum, maximum, multiples };
}

/** The texts of integers within the facts; undefined where every integer is right. */
export function integerAutomaton(facts: NumberFacts, path: string): TextAutomaton | undefined {
  const { minimum, maximum } = facts;
  const multiples = facts.multiples.filter((multiple) => multiple !== 1);
  if (minimum === undefined && maximum === undefined && multiples.length === 0) return undefined;
  return at(path, () => {
    let pattern = jsonInteger();
    if (minimum !== undefined || maximum !== undefined) {
      const limit = 10n ** 30n;
      const low = minimum === undefined ? -limit : firstInteger(minimum);
      const high =
        maximum === undefined
          ? limit
          : -firstInteger({ value: -maximum.value, exclusive: maximum.exclusive });
      pattern = integerRange(low, high);
    }
    return multiples.map(multiplesOf).reduce((a, b) => intersect(a, b), determinize(pattern));
  });
}

/** The least integer that a lower bound allows. */
function firstInteger(bound: Bound): bigint {
  const least = Math.ceil(bound.value);
  return BigInt(least) + (bound.exclusive && least === bound.value ? 1n : 0n);
}

/** The texts of numbers within the facts; undefined where every number is right. */
export function numberAutomaton(facts: NumberFacts, path: string): TextAutomaton | undefined {
  // Multiples of whole numbers are whole.
  if (facts.multiples.length > 0) return integerAutomaton(facts, path) ?? determinize(jsonInteger());
  if (facts.minimum === undefined && facts.maximum === undefined) return undefined;
  return at(path, () => determinize(numberRange(facts.minimum, facts.maximum)));
}

/** The values of enum and const that all facts allow, without repetitions; undefined where there is neither. */
export function enumeratedValues(facts: readonly Fact[], patterns: PatternCache): unknown[] | undefined {
  let values: Map<string, unknown> | undefined;
  for (const { schema, path } of facts) {
    for (const keyword of ["enum", "const"]) {
      if (!Object.hasOwn(schema, keyword)) continue;
      const list = keyword === "const" ? [schema[keyword]] : schema[keyword];
      if (!Array.isArray(list) || list.length === 0) {
        throw wrong(childPath(path, keyword), "a list of at least one value", list);
      }
      const own = new Map(list.map((value: unknown) => [canonical(value), value]));
      values = values === undefined ? own : new Map([...values].filter(([text]) => own.has(text)));
    }
  }
  if (values === undefined) return undefined;
  const types = new Set(typesOf(facts));
  const strings = stringFacts(facts, patterns);
  const numbers = numberFacts(facts);
  return [...values.values()].filter((value) => {
    const type = typeOf(value);
    if (!types.has(type) && !(type === "integer" && types.has("number"))) return false;
    if (typeof value === "string") return matchesString(value, strings);
    if (typeof value === "number") return matchesNumber(value, numbers);
    if (type === "object" || type === "array") refuseContainerFacts(type, facts);
    return true;
  });
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

function typeOf(value: unknown): JsonType {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value as JsonType;
}

function matchesString(value: string, { minimum, maximum, automata }: StringFacts): boolean {
  const length = Array.from(value).length;
  return length >= minimum && length <= maximum && automata.every((automaton) => accepts(automaton, value));
}

function matchesNumber(value: number, { minimum, maximum, multiples }: NumberFacts): boolean {
  if (minimum !== undefined && (minimum.exclusive ? value <= minimum.value : value < minimum.value))
    return false;
  if (maximum !== undefined && (maximum.exclusive ? value >= maximum.value : value > maximum.value))
    return false;
  return multiples.every((multiple) => value % multiple === 0);
}

const containerKeywords = {
  object: [
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "minProperties",
    "maxProperties",
  ],
  array: ["items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"],
} as const;

/** @throws GrammarProblem for keywords of objects or arrays beside an enum that has them */
function refuseContainerFacts(type: "object" | "array", facts: readonly Fact[]): void {
  for (const { schema, path } of facts) {
    const keyword = containerKeywords[type].find((name) => name in schema);
    if (keyword === undefined) continue;
    throw new GrammarProblem(`${keyword} is not supported beside an enum or const of an ${type}`, {
      where: childPath(path, keyword),
    });
  }
}

const space: Pattern = repeat(setOf(0x20, 0x20), 0, 1);

/** The JSON of a value, with at most one space after commas and colons. */
export function valuePattern(value: unknown): Pattern {
  if (Array.isArray(value)) {
    return sequence(literal("["), ...joined(value.map(valuePattern)), literal("]"));
  }
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).map(([key, member]) =>
      sequence(literal(`${JSON.stringify(key)}:`), space, valuePattern(member)),
    );
    return sequence(literal("{"), ...joined(members), literal("}"));
  }
  return literal(JSON.stringify(value));
}

function joined(patterns: readonly Pattern[]): Pattern[] {
  return patterns.flatMap((pattern, index) => (index === 0 ? [pattern] : [literal(","), space, pattern]));
}

/** Any of the values. */
export function valuesPattern(values: readonly unknown[]): Pattern {
  return choice(...values.map(valuePattern));
}

/** Bounds of a count, checked against each other by who uses them. */
export function countBounds(
  facts: readonly Fact[],
  minimum: string,
  maximum: string,
): { minimum: number; maximum: number } {
  for (const fact of facts) {
    count(fact, minimum);
    count(fact, maximum);
  }
  return { minimum: largest(facts, minimum), maximum: smallest(facts, maximum) };
}

/** A short form of a name, for messages. */
export function quoted(name: string): string {
  return JSON.stringify(excerpt(name, 40));
}
