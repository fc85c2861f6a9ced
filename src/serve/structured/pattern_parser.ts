import { allCodePoints, type CodePoints, codePoints, complement, union } from "./code_points.ts";
import { limits } from "./limits.ts";
import { choice, emptyPattern, type Pattern, repeat, sequence } from "./pattern.ts";
import { excerpt, GrammarProblem } from "./problem.ts";

const digitSet: CodePoints = [0x30, 0x39];
const wordSet: CodePoints = [0x30, 0x39, 0x41, 0x5a, 0x5f, 0x5f, 0x61, 0x7a];
/** White space and line ends of ECMA-262. */
const spaceSet: CodePoints = codePoints([
  0x09, 0x0d, 0x20, 0x20, 0xa0, 0xa0, 0x1680, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029, 0x202f, 0x202f, 0x205f,
  0x205f, 0x3000, 0x3000, 0xfeff, 0xfeff,
]);
const dotSet: CodePoints = complement(codePoints([0x0a, 0x0a, 0x0d, 0x0d, 0x2028, 0x2029]));

const controlEscapes: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13 };

/**
 * The tree of an ECMA-262 regular expression (no flags; characters are code points, as with the `u` flag).
 * @throws GrammarProblem for what is not a regular expression, and by name for what no finite automaton can
 * tell (lookaround, backreferences, word boundaries) or what is not supported (`\p{…}`, inline flags)
 */
export function parsePattern(source: string): Pattern {
  if (source.length > limits.patternLength) {
    throw new GrammarProblem("the regular expression is too long", {
      expected: `at most ${limits.patternLength} characters`,
      received: `${source.length}`,
    });
  }
  return new PatternParser(source).parse();
}

class PatternParser {
  readonly #source: string;
  readonly #characters: readonly string[];
  #position = 0;
  #depth = 0;

  constructor(source: string) {
    this.#source = source;
    this.#characters = Array.from(source);
  }

  parse(): Pattern {
    const pattern = this.#choice();
    if (this.#position < this.#characters.length) throw this.#problem("an unmatched )");
    return pattern;
  }

  #peek(ahead = 0): string {
    return this.#characters[this.#position + ahead] ?? "";
  }

  #startsWith(text: string): boolean {
    return this.#characters.slice(this.#position, this.#position + text.length).join("") === text;
  }

  #take(text: string): boolean {
    if (!this.#startsWith(text)) return false;
    this.#position += text.length;
    return true;
  }

  #problem(what: string): GrammarProblem {
    return new GrammarProblem(`the regular expression has ${what}, at character ${this.#position}`, {
      received: JSON.stringify(excerpt(this.#source)),
    });
  }

  #unsupported(what: string): GrammarProblem {
    return new GrammarProblem(
      `${what} is not supported in regular expressions, at character ${this.#position}`,
      {
        received: JSON.stringify(excerpt(this.#source)),
        hint: "write it with classes, groups, |, repetitions and anchors only",
      },
    );
  }

  #choice(): Pattern {
    if (++this.#depth > limits.patternDepth) {
      throw new GrammarProblem("the regular expression is nested too deeply", {
        expected: `at most ${limits.patternDepth} levels`,
      });
    }
    const options = [this.#sequence()];
    while (this.#take("|")) options.push(this.#sequence());
    this.#depth--;
    return choice(...options);
  }

  #sequence(): Pattern {
    const parts: Pattern[] = [];
    while (this.#position < this.#characters.length && this.#peek() !== "|" && this.#peek() !== ")") {
      parts.push(this.#term());
    }
    return sequence(...parts);
  }

  #term(): Pattern {
    if (this.#take("^")) return this.#notRepeated({ kind: "start" });
    if (this.#take("$")) return this.#notRepeated({ kind: "end" });
    const body = this.#atom();
    const bounds = this.#quantifier();
    if (bounds === undefined) return body;
    if (this.#quantifier() !== undefined) throw this.#problem("two repetitions in a row");
    return repeat(body, bounds.minimum, bounds.maximum);
  }

  #notRepeated(assertion: Pattern): Pattern {
    if (this.#quantifier() !== undefined) throw this.#problem("a repeated ^ or $");
    return assertion;
  }

  /** A repetition, where one is next; lazy ones match the same texts. */
  #quantifier(): { minimum: number; maximum: number } | undefined {
    let bounds: { minimum: number; maximum: number } | undefined;
    if (this.#take("*")) bounds = { minimum: 0, maximum: Number.POSITIVE_INFINITY };
    else if (this.#take("+")) bounds = { minimum: 1, maximum: Number.POSITIVE_INFINITY };
    else if (this.#take("?")) bounds = { minimum: 0, maximum: 1 };
    else if (this.#peek() === "{") bounds = this.#counts();
    if (bounds !== undefined) this.#take("?");
    return bounds;
  }

  /** `{n}`, `{n,}` or `{n,m}`; a brace that is none of them is a character. */
  #counts(): { minimum: number; maximum: number } | undefined {
    const rest = this.#characters.slice(this.#position, this.#position + 32).join("");
    const match = /^\{(\d+)(,(\d*))?\}/.exec(rest);
    if (match === null) return undefined;
    this.#position += match[0].length;
    const minimum = Number(match[1]);
    const maximum =
      match[2] === undefined ? minimum : match[3] === "" ? Number.POSITIVE_INFINITY : Number(match[3]);
    if (minimum > maximum) throw this.#problem("a repetition whose numbers are out of order");
    return { minimum, maximum };
  }

  #atom(): Pattern {
    const character = this.#peek();
    if (character === "(") return this.#group();
    if (character === "[") return { kind: "set", set: this.#class() };
    if (character === "*" || character === "+" || character === "?") throw this.#problem("nothing to repeat");
    if (character === "{" && this.#counts() !== undefined) throw this.#problem("nothing to repeat");
    if (character === "\\") return { kind: "set", set: this.#escape(false) };
    this.#position++;
    if (character === ".") return { kind: "set", set: dotSet };
    return { kind: "set", set: this.#single(character.codePointAt(0)!) };
  }

  #single(point: number): CodePoints {
    return codePoints([point, point]);
  }

  #group(): Pattern {
    if (this.#startsWith("(?=") || this.#startsWith("(?!")) throw this.#unsupported("lookahead");
    if (this.#startsWith("(?<=") || this.#startsWith("(?<!")) throw this.#unsupported("lookbehind");
    this.#position++;
    if (this.#take("?:")) {
      // Nothing is captured anyway.
    } else if (this.#take("?<") || this.#take("?P<")) {
      const end = this.#characters.indexOf(">", this.#position);
      if (end < 0) throw this.#problem("a group name without an end");
      this.#position = end + 1;
    } else if (this.#peek() === "?") {
      throw this.#unsupported("a group with flags");
    }
    const body = this.#choice();
    if (!this.#take(")")) throw this.#problem("a group without an end");
    return body.kind === "sequence" && body.parts.length === 0 ? emptyPattern : body;
  }

  #class(): CodePoints {
    this.#position++;
    const negated = this.#take("^");
    const pieces: CodePoints[] = [];
    while (!this.#take("]")) {
      if (this.#position >= this.#characters.length) throw this.#problem("a class without an end");
      const low = this.#classMember();
      if (this.#peek() === "-" && this.#peek(1) !== "]" && this.#peek(1) !== "") {
        this.#position++;
        const high = this.#classMember();
        if (low.point === undefined || high.point === undefined) {
          // As without the u flag: the hyphen is a character.
          pieces.push(low.set, high.set, [0x2d, 0x2d]);
          continue;
        }
        if (low.point > high.point) throw this.#problem("a range whose ends are out of order");
        pieces.push(codePoints([low.point, high.point]));
      } else {
        pieces.push(low.set);
      }
    }
    const set = union(...pieces);
    return negated ? complement(set) : set;
  }

  #classMember(): { set: CodePoints; point?: number } {
    if (this.#peek() === "\\") {
      const set = this.#escape(true);
      return set.length === 2 && set[0] === set[1] ? { set, point: set[0]! } : { set };
    }
    const point = this.#peek().codePointAt(0)!;
    this.#position++;
    return { set: this.#single(point), point };
  }

  #escape(inClass: boolean): CodePoints {
    const character = this.#peek(1);
    if (character === "") throw this.#problem("a \\ at its end");
    if (!inClass && (character === "b" || character === "B"))
      throw this.#unsupported("the word boundary \\b");
    if (!inClass && /[1-9]/.test(character)) throw this.#unsupported(`the backreference \\${character}`);
    if (character === "k") throw this.#unsupported("the backreference \\k");
    if (character === "p" || character === "P") throw this.#unsupported(`the property class \\${character}`);
    this.#position += 2;
    switch (character) {
      case "d":
        return digitSet;
      case "D":
        return complement(digitSet);
      case "w":
        return wordSet;
      case "W":
        return complement(wordSet);
      case "s":
        return spaceSet;
      case "S":
        return complement(spaceSet);
      case "b":
        return [8, 8];
      case "0":
        return [0, 0];
      case "x":
        return this.#single(this.#hexadecimal(2));
      case "u":
        return this.#single(this.#unicode());
      case "c": {
        const letter = this.#peek();
        if (!/^[A-Za-z]$/.test(letter)) throw this.#problem("a wrong \\c");
        this.#position++;
        return this.#single(letter.charCodeAt(0) & 31);
      }
    }
    const control = controlEscapes[character];
    if (control !== undefined) return [control, control];
    if (/[A-Za-z0-9]/.test(character)) throw this.#unsupported(`the escape \\${character}`);
    return this.#single(character.codePointAt(0)!);
  }

  #hexadecimal(length: number): number {
    const text = this.#characters.slice(this.#position, this.#position + length).join("");
    if (text.length !== length || !/^[0-9a-fA-F]+$/.test(text))
      throw this.#problem("a wrong hexadecimal escape");
    this.#position += length;
    return Number.parseInt(text, 16);
  }

  #unicode(): number {
    if (this.#take("{")) {
      const end = this.#characters.indexOf("}", this.#position);
      const length = end - this.#position;
      if (end < 0 || length < 1 || length > 8) throw this.#problem("a wrong \\u{…}");
      const point = this.#hexadecimal(length);
      this.#position++;
      if (point > allCodePoints.at(-1)!) throw this.#problem("a \\u{…} past the last character");
      return point;
    }
    const first = this.#hexadecimal(4);
    if (first >= 0xd800 && first <= 0xdbff && this.#startsWith("\\u")) {
      const before = this.#position;
      this.#position += 2;
      const second = this.#hexadecimal(4);
      if (second >= 0xdc00 && second <= 0xdfff) return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
      this.#position = before;
    }
    return first;
  }
}
