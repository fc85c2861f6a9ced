import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { allowsText, randomText, testTokens } from "../../../test/support/structured_walk.ts";
import { RequestError } from "../engine/errors.ts";
import { allCodePoints, codePoints, complement, intersection, union, utf8Sequences } from "./code_points.ts";
import { GrammarCompiler } from "./compiler.ts";
import { type Bound, integerRange, numberRange } from "./numbers.ts";
import { parsePattern } from "./pattern_parser.ts";
import { accepts, determinize, intersect, lengthAutomaton, subtract } from "./text_automaton.ts";

/** Regular expressions over a, b and é, as text; JavaScript's own engine is what they are compared with. */
const { expression } = fc.letrec<{ expression: string }>((tie) => ({
  expression: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom("a", "b", "é", ".", "[ab]", "[^a]", "\\d", "\\w", "[a-c\\d]", "\\u{e9}", "\\x62"),
    fc.tuple(tie("expression"), tie("expression")).map(([a, b]) => `${a}${b}`),
    fc.tuple(tie("expression"), tie("expression")).map(([a, b]) => `(?:${a}|${b})`),
    fc
      .tuple(tie("expression"), fc.constantFrom("*", "+", "?", "{2}", "{1,}", "{0,2}", "*?", "+?"))
      .map(([a, count]) => `(${a})${count}`),
    fc.tuple(tie("expression"), fc.constantFrom("^", "")).map(([a, anchor]) => `(?:${anchor}${a})`),
    fc.tuple(tie("expression"), fc.constantFrom("$", "")).map(([a, anchor]) => `(?:${a}${anchor})`),
  ),
}));
const words = fc
  .array(fc.constantFrom("a", "b", "c", "é", "1", "😀", "\n"), { maxLength: 6 })
  .map((letters) => letters.join(""));

describe("regular expressions", () => {
  it("match what JavaScript's match, within a text and as a whole", () => {
    fc.assert(
      fc.property(expression, fc.array(words, { minLength: 5, maxLength: 20 }), (source, texts) => {
        const within = determinize(parsePattern(source), { search: true });
        const whole = determinize(parsePattern(source));
        for (const text of texts) {
          expect(accepts(within, text), text).toBe(new RegExp(source, "u").test(text));
          expect(accepts(whole, text), text).toBe(new RegExp(`^(?:${source})$`, "u").test(text));
        }
      }),
      { numRuns: 300 },
    );
  });

  it("can be put together", () => {
    fc.assert(
      fc.property(
        expression,
        expression,
        fc.array(words, { minLength: 5, maxLength: 20 }),
        (left, right, texts) => {
          const [a, b] = [left, right].map((source) => determinize(parsePattern(source), { search: true }));
          for (const text of texts) {
            expect(accepts(intersect(a!, b!), text)).toBe(accepts(a!, text) && accepts(b!, text));
            expect(accepts(subtract(a!, b!), text)).toBe(accepts(a!, text) && !accepts(b!, text));
            const short = Array.from(text).length >= 2 && Array.from(text).length <= 4;
            expect(accepts(intersect(a!, lengthAutomaton(2, 4)), text)).toBe(accepts(a!, text) && short);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it.each([
    ["\\s\\S", " x", "xx"],
    ["\\W\\D", "-x", "a1"],
    ["[\\]\\-x]+", "]-x", "y"],
    ["a{,2}", "a{,2}", "aa"],
    ["\\cA\\0\\t", "\u0001\0\t", "A"],
    ["\\ud83d\\ude00", "😀", "x"],
    ["(?<name>a)b", "ab", "a"],
    ["[^]", "\n", ""],
    ["\\.\\/\\{", "./{", "x/{"],
    ["[\\w-]+", "a-b", "a b"],
    ["[a-]", "-", "b"],
    ["", "", "a"],
  ])("%s", (source, right, wrong) => {
    const automaton = determinize(parsePattern(source));
    expect(accepts(automaton, right)).toBe(true);
    expect(accepts(automaton, wrong)).toBe(false);
  });

  const tokens = testTokens();
  const compiler = new GrammarCompiler(tokens);

  it("guide texts that are no JSON", () => {
    const grammar = compiler.regex("(yes|no|ü\\n)[0-9]{2}");
    expect(allowsText(grammar, tokens, "yes42")).toBe(true);
    expect(allowsText(grammar, tokens, "ü\n42")).toBe(true);
    expect(allowsText(grammar, tokens, "maybe42")).toBe(false);
    expect(allowsText(grammar, tokens, "no4")).toBe(false);
    for (let seed = 0; seed < 20; seed++) {
      expect(randomText(grammar, tokens, seed).toString()).toMatch(/^(yes|no|ü\n)[0-9]{2}$/);
    }
    expect(allowsText(compiler.regex("a*"), tokens, "")).toBe(true);
  });

  it("choose among texts", () => {
    const grammar = compiler.choices(["positive", "negative", "pos"]);
    for (const text of ["positive", "negative", "pos"]) expect(allowsText(grammar, tokens, text)).toBe(true);
    for (const text of ["posit", "", "positives"]) expect(allowsText(grammar, tokens, text)).toBe(false);
    expect(() => compiler.choices([])).toThrow(RequestError);
  });

  it.each([
    ["(?=a)b", /lookahead/],
    ["(?!a)b", /lookahead/],
    ["(?<=a)b", /lookbehind/],
    ["(?<!a)b", /lookbehind/],
    ["(a)\\1", /backreference \\1/],
    ["(?<x>a)\\k<x>", /backreference \\k/],
    ["\\bword", /word boundary/],
    ["\\p{L}", /property class/],
    ["(?i:a)", /flags/],
    ["\\y", /escape \\y/],
    ["(a", /without an end/],
    ["a)", /unmatched/],
    ["[a", /without an end/],
    ["*a", /nothing to repeat/],
    ["a**", /two repetitions/],
    ["a{3,2}", /out of order/],
    ["[z-a]", /out of order/],
    ["a\\", /at its end/],
    ["x{1,100000}", /too large/],
    ["((x{1,1000}){1,1000}){1,1000}", /too large/],
    ["(a|aa){3000}", /too (large|complex)/],
    [".*a.{40}", /too complex/],
    ["(".repeat(5000), /nested too deeply/],
    ["a".repeat(20_000), /too long/],
    ["[^\\s\\S]", /nothing can match/],
  ])("refuse %#: %s", (source, message) => {
    try {
      compiler.regex(source);
    } catch (error) {
      expect(error).toBeInstanceOf(RequestError);
      expect((error as RequestError).message).toMatch(message);
      expect((error as RequestError).parameter).toBe("guided_regex");
      return;
    }
    throw new Error("was not refused");
  });
});

it("sets of characters hold what they should, and UTF-8 of exactly that", () => {
  const point = fc.oneof(
    fc.nat(0x10ffff),
    fc.constantFrom(0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000),
  );
  const ranges = fc.array(
    fc.tuple(point, point).map(([a, b]) => [Math.min(a, b), Math.max(a, b)]),
    { maxLength: 4 },
  );
  fc.assert(
    fc.property(ranges, ranges, fc.array(point), (left, right, points) => {
      const [a, b] = [codePoints(left.flat()), codePoints(right.flat())];
      const within = (list: number[][], value: number) =>
        list.some(([low, high]) => value >= low! && value <= high!);
      const holds = (set: readonly number[], value: number) =>
        set.some((low, i) => i % 2 === 0 && value >= low && value <= set[i + 1]!);
      for (const value of [...points, ...left.flat(), ...right.flat()]) {
        const scalar = value < 0xd800 || value > 0xdfff;
        const [inLeft, inRight] = [within(left, value) && scalar, within(right, value) && scalar];
        expect(holds(a, value)).toBe(inLeft);
        expect(holds(union(a, b), value)).toBe(inLeft || inRight);
        expect(holds(intersection(a, b), value)).toBe(inLeft && inRight);
        expect(holds(complement(a), value)).toBe(!inLeft && scalar);
        if (!scalar) continue;
        const bytes = Buffer.from(String.fromCodePoint(value));
        const written = utf8Sequences(a).filter(
          (s) =>
            s.length === 2 * bytes.length &&
            bytes.every((byte, i) => byte >= s[2 * i]! && byte <= s[2 * i + 1]!),
        );
        expect(written.length).toBe(inLeft ? 1 : 0);
      }
    }),
  );
  expect(utf8Sequences(allCodePoints).length).toBe(9);
});

it("integers within bounds are those between them", () => {
  const bound = fc.oneof(fc.integer({ min: -300, max: 300 }), fc.maxSafeInteger());
  fc.assert(
    fc.property(bound, bound, fc.array(bound), (a, b, others) => {
      const [low, high] = [Math.min(a, b), Math.max(a, b)];
      const automaton = determinize(integerRange(BigInt(low), BigInt(high)));
      for (const value of [low, high, low - 1, high + 1, 0, ...others]) {
        expect(accepts(automaton, String(value)), `${value}`).toBe(value >= low && value <= high);
      }
    }),
  );
});

it("numbers within bounds are those between them", () => {
  const value = fc
    .tuple(fc.integer({ min: -20_000, max: 20_000 }), fc.nat(4))
    .map(([n, places]) => Number(`${n}e-${places}`));
  const bound: fc.Arbitrary<Bound | undefined> = fc.option(fc.record({ value, exclusive: fc.boolean() }), {
    nil: undefined,
  });
  fc.assert(
    fc.property(bound, bound, fc.array(value), (minimum, maximum, others) => {
      const automaton = determinize(numberRange(minimum, maximum));
      const ends = [minimum, maximum].flatMap((end) => (end === undefined ? [] : [end.value, -end.value]));
      for (const number of [...ends, ...others]) {
        const above =
          minimum === undefined || (minimum.exclusive ? number > minimum.value : number >= minimum.value);
        const below =
          maximum === undefined || (maximum.exclusive ? number < maximum.value : number <= maximum.value);
        const text = String(Object.is(number, -0) ? 0 : number);
        if (text.includes("e")) continue;
        expect(accepts(automaton, text), text).toBe(above && below);
        // Zeros at the end of a fraction change nothing.
        if (text.includes(".")) expect(accepts(automaton, `${text}0`), `${text}0`).toBe(above && below);
      }
    }),
    { numRuns: 500 },
  );
});
