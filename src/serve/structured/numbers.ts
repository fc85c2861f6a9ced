import {
  anyOf,
  choice,
  digits,
  literal,
  optional,
  type Pattern,
  repeat,
  sequence,
  setOf,
} from "./pattern.ts";
import { GrammarProblem } from "./problem.ts";
import type { TextAutomaton } from "./text_automaton.ts";

/**
 * Numbers as JSON writes them, within what a float64 holds. Integers have at most `integerDigits` digits and no
 * exponent; numbers without bounds may have one, which keeps them finite.
 */
export const integerDigits = 19;
const fractionDigits = 25;

const minus = literal("-");

/** `first` to `last` digits, the first of them not 0. */
function wholeNumber(most: number): Pattern {
  return sequence(digits(1, 9), repeat(digits(), 0, most - 1));
}

/** Any integer of at most 19 digits; never `-0`. */
export function jsonInteger(): Pattern {
  return choice(literal("0"), sequence(optional(minus), wholeNumber(integerDigits)));
}

/** Any number whose value is finite. */
export function jsonNumber(): Pattern {
  const whole = choice(literal("0"), wholeNumber(integerDigits));
  const fraction = sequence(literal("."), repeat(digits(), 1, fractionDigits));
  const sign = anyOf("eE");
  const upTo = (limit: number): Pattern =>
    // Exponents without leading zeros, so that the digits say how large they are.
    sequence(sign, optional(literal("+")), wholeRange("0", String(limit)));
  const small = sequence(sign, minus, wholeRange("0", "330"));
  // One digit before the point leaves room for larger exponents: 9.99e307 is finite, 10^19 x 10^288 as well.
  const scientific = sequence(digits(), optional(fraction), choice(upTo(307), small));
  const long = sequence(whole, optional(fraction), optional(choice(upTo(288), small)));
  return sequence(optional(minus), choice(scientific, long));
}

/** Whole numbers from `low` to `high`, written without leading zeros. */
function wholeRange(low: string, high: string): Pattern {
  const options: Pattern[] = [];
  for (let length = low.length; length <= high.length; length++) {
    const from = length === low.length ? low : `1${"0".repeat(length - 1)}`;
    const to = length === high.length ? high : "9".repeat(length);
    options.push(sameLengthRange(from, to));
  }
  return choice(...options);
}

/** Digit texts between two of the same length. */
function sameLengthRange(low: string, high: string): Pattern {
  if (low.length === 0) return literal("");
  const first = Number(low[0]);
  const last = Number(high[0]);
  const rest = low.length - 1;
  if (first === last) return sequence(digits(first, first), sameLengthRange(low.slice(1), high.slice(1)));
  const options: Pattern[] = [];
  let from = first;
  let to = last;
  if (!/^0*$/.test(low.slice(1))) {
    options.push(sequence(digits(first, first), sameLengthRange(low.slice(1), "9".repeat(rest))));
    from++;
  }
  if (!/^9*$/.test(high.slice(1))) {
    options.push(sequence(digits(last, last), sameLengthRange("0".repeat(rest), high.slice(1))));
    to--;
  }
  if (from <= to) options.push(sequence(digits(from, to), repeat(digits(), rest, rest)));
  return choice(...options);
}

/** Integers from `minimum` to `maximum`, cut to 19 digits. Nothing where there is none. */
export function integerRange(minimum: bigint, maximum: bigint): Pattern {
  const limit = 10n ** BigInt(integerDigits) - 1n;
  const low = minimum < -limit ? -limit : minimum;
  const high = maximum > limit ? limit : maximum;
  const options: Pattern[] = [];
  if (low > high) return choice();
  if (high >= 0n) options.push(wholeRange(String(low > 0n ? low : 0n), String(high)));
  if (low < 0n) options.push(sequence(minus, wholeRange(String(high < 0n ? -high : 1n), String(-low))));
  return choice(...options);
}

/** Texts of integers that `divisor` divides, as an automaton over the remainder. */
export function multiplesOf(divisor: number): TextAutomaton {
  if (!Number.isInteger(divisor) || divisor < 1 || divisor > 1000) {
    throw new GrammarProblem("multipleOf is supported for whole numbers only", {
      expected: "an integer from 1 to 1000",
      received: String(divisor),
    });
  }
  // States: 0 the beginning, 1 after the sign, 2 + r with remainder r.
  const row = (from: number) =>
    Array.from({ length: 10 }, (_, digit) => [
      0x30 + digit,
      0x30 + digit,
      2 + ((from * 10 + digit) % divisor),
    ]).flat();
  return {
    start: 0,
    accepting: [false, false, ...Array.from({ length: divisor }, (_, remainder) => remainder === 0)],
    transitions: [
      [0x2d, 0x2d, 1, ...row(0)],
      row(0),
      ...Array.from({ length: divisor }, (_, remainder) => row(remainder)),
    ],
  };
}

/** One end of a range of numbers. */
export interface Bound {
  readonly value: number;
  readonly exclusive: boolean;
}

/** A bound's magnitude: digits before and after the point. */
interface Magnitude {
  readonly whole: string;
  /** Without zeros at its end. */
  readonly fraction: string;
  readonly exclusive: boolean;
}

function magnitude(bound: Bound): Magnitude {
  const text = decimalText(Math.abs(bound.value));
  const [whole, fraction = ""] = text.split(".");
  return { whole: whole!, fraction: fraction.replace(/0+$/, ""), exclusive: bound.exclusive };
}

/** The shortest digits of a float64 (those that JavaScript prints), without an exponent. */
function decimalText(value: number): string {
  const [digitsText, exponentText] = String(value).split("e");
  if (exponentText === undefined) return digitsText!;
  const exponent = Number(exponentText);
  if (exponent > integerDigits || exponent < -fractionDigits) {
    throw new GrammarProblem("the bound of a number is too large or too small", {
      expected: "0, or between 1e-20 and 1e19",
      received: String(value),
    });
  }
  const [whole, fraction = ""] = digitsText!.split(".");
  if (exponent < 0) return `0.${"0".repeat(-exponent - 1)}${whole}${fraction}`;
  return whole + fraction.padEnd(exponent, "0");
}

/** Numbers within bounds, written without an exponent. Nothing where there is none. */
export function numberRange(minimum: Bound | undefined, maximum: Bound | undefined): Pattern {
  checkExact(minimum);
  checkExact(maximum);
  const options: Pattern[] = [];
  const zero: Bound = { value: 0, exclusive: false };
  if (maximum === undefined || maximum.value >= 0) {
    const low = minimum !== undefined && minimum.value >= 0 ? minimum : zero;
    if (!isEmpty(low, maximum)) options.push(magnitudeRange(low, maximum));
  }
  if (minimum === undefined || minimum.value < 0) {
    // Mirrored. -0 is written 0, so magnitudes of negative numbers are more than 0.
    const low =
      maximum !== undefined && maximum.value < 0 ? mirrored(maximum) : { value: 0, exclusive: true };
    const high = minimum === undefined ? undefined : mirrored(minimum);
    if (!isEmpty(low, high)) options.push(sequence(minus, magnitudeRange(low, high)));
  }
  return choice(...options);
}

function mirrored(bound: Bound): Bound {
  return { value: -bound.value, exclusive: bound.exclusive };
}

/** Excluded bounds beyond what a float64 counts one by one: a number beside them would round onto them. */
function checkExact(bound: Bound | undefined): void {
  if (bound?.exclusive === true && Math.abs(bound.value) > 1e15) {
    throw new GrammarProblem("an exclusive bound of a number is too large", {
      expected: "at most 1e15",
      received: String(bound.value),
    });
  }
}

function isEmpty(low: Bound, high: Bound | undefined): boolean {
  if (high === undefined) return false;
  return low.value > high.value || (low.value === high.value && (low.exclusive || high.exclusive));
}

function magnitudeRange(low: Bound, high: Bound | undefined): Pattern {
  const from = magnitude(low);
  const to = high === undefined ? undefined : magnitude(high);
  // Digits that a float64 tells apart: rounding must not carry a value onto an excluded bound.
  const places = Math.max(1, 15 - Math.max(from.whole.length, to?.whole.length ?? 0));
  const fraction = optional(sequence(literal("."), repeat(digits(), 1, places)));
  const options: Pattern[] = [];
  if (to !== undefined && from.whole === to.whole) {
    options.push(sequence(literal(from.whole), fractionRange(from, to, places)));
    return choice(...options);
  }
  options.push(sequence(literal(from.whole), fractionRange(from, undefined, places)));
  const first = BigInt(from.whole) + 1n;
  const last = to === undefined ? 10n ** BigInt(integerDigits) - 1n : BigInt(to.whole) - 1n;
  if (first <= last) options.push(sequence(wholeRange(String(first), String(last)), fraction));
  if (to !== undefined) options.push(sequence(literal(to.whole), fractionRange(undefined, to, places)));
  return choice(...options);
}

/** What may follow the whole part of a number at a bound: nothing or a fraction, on the right side of the bound's. */
function fractionRange(low: Magnitude | undefined, high: Magnitude | undefined, places: number): Pattern {
  const options: Pattern[] = [];
  const noFraction =
    (low === undefined || (low.fraction === "" && !low.exclusive)) &&
    (high === undefined || high.fraction !== "" || !high.exclusive);
  if (noFraction) options.push(literal(""));
  const body = fractionFrom(
    low?.fraction,
    low?.exclusive ?? false,
    high?.fraction,
    high?.exclusive ?? false,
    places,
    0,
  );
  if (body !== undefined) options.push(sequence(literal("."), body));
  return choice(...options);
}

/**
 * Digits after the point, at least one in all, that lie between two bounds; a bound that is undefined is passed.
 * @param written digits written before these
 */
function fractionFrom(
  low: string | undefined,
  lowExclusive: boolean,
  high: string | undefined,
  highExclusive: boolean,
  places: number,
  written: number,
): Pattern | undefined {
  const options: Pattern[] = [];
  const lowMet = low === undefined || (low === "" && !lowExclusive);
  const highMet = high === undefined || high !== "" || !highExclusive;
  if (written > 0 && lowMet && highMet) options.push(literal(""));
  if (written < places) {
    if (low === undefined && high === undefined) {
      const rest = repeat(digits(), written === 0 ? 1 : 0, places - written);
      return written === 0 ? rest : choice(...options, rest);
    }
    const from = Number(low?.[0] ?? "0");
    const to = high === undefined ? 9 : Number(high[0] ?? "0");
    for (let digit = from; digit <= to; digit++) {
      const rest = fractionFrom(
        low !== undefined && digit === from ? low.slice(1) : undefined,
        lowExclusive,
        high !== undefined && digit === to ? high.slice(1) : undefined,
        highExclusive,
        places,
        written + 1,
      );
      if (rest !== undefined) options.push(sequence(setOf(0x30 + digit, 0x30 + digit), rest));
    }
  }
  return options.length === 0 ? undefined : choice(...options);
}
