import { allCodePoints, intersection } from "./code_points.ts";
import { NetworkBuilder } from "./network.ts";
import { jsonInteger, jsonNumber } from "./numbers.ts";
import { determinize, type TextAutomaton } from "./text_automaton.ts";
import { addSequences, TextRules } from "./text_rules.ts";

const integers = determinize(jsonInteger());
const numbers = determinize(jsonNumber());

/**
 * A builder of JSON grammars with the rules that all of them have, always under the same numbers: what is worked
 * out for them is shared by all grammars of a server. The JSON is compact (RFC 8259), with at most one space after
 * a comma or a colon, so that a model cannot ramble in white space.
 */
export class JsonRules {
  readonly builder = new NetworkBuilder();
  readonly texts: TextRules;
  /** Any character of a string that is more than one byte: every escape, and UTF-8 beyond ASCII. */
  readonly #long: number;
  readonly string: number;
  readonly integer: number;
  readonly number: number;
  readonly boolean: number;
  readonly null: number;
  readonly array: number;
  readonly object: number;
  /** Any value. */
  readonly value: number;

  constructor() {
    const { builder } = this;
    this.texts = new TextRules(builder);
    this.#long = builder.rule("a character");
    this.#writeLong();
    this.string = builder.rule("a string");
    this.#writeString();
    this.integer = this.#automatonRule("an integer", integers);
    this.number = this.#automatonRule("a number", numbers);
    this.boolean = builder.rule("a boolean");
    for (const text of ["true", "false"]) {
      builder.text(builder.start(this.boolean), text, builder.end(this.boolean));
    }
    this.null = builder.rule("null");
    builder.text(builder.start(this.null), "null", builder.end(this.null));
    this.value = builder.rule("any value");
    this.array = builder.rule("any array");
    this.object = builder.rule("any object");
    this.#writeArray();
    this.#writeObject();
    for (const rule of [this.string, this.number, this.boolean, this.null, this.array, this.object]) {
      builder.call(builder.start(this.value), rule, builder.end(this.value));
    }
    builder.endOfShared();
  }

  /** `mark` (a comma or a colon) and perhaps a space. Returns the state behind them. */
  separator(from: number, mark: "," | ":"): number {
    const after = this.builder.text(from, mark);
    const to = this.builder.state();
    this.builder.text(after, " ", to);
    this.builder.empty(after, to);
    return to;
  }

  /** One character of a string, spelled in any way. */
  stringCharacter(from: number, to: number): void {
    this.builder.byte(from, 0x20, 0x21, to);
    this.builder.byte(from, 0x23, 0x5b, to);
    this.builder.byte(from, 0x5d, 0x7f, to);
    this.builder.call(from, this.#long, to);
  }

  #automatonRule(name: string, automaton: TextAutomaton): number {
    const rule = this.builder.rule(name);
    this.texts.automaton(automaton, this.builder.start(rule), this.builder.end(rule), "plain");
    return rule;
  }

  #writeLong(): void {
    const { builder } = this;
    const start = builder.start(this.#long);
    const end = builder.end(this.#long);
    addSequences(builder, intersection(allCodePoints, [0x80, 0x10ffff]), start, end);
    const escaped = builder.text(start, "\\");
    for (const character of '"\\/bfnrt') builder.text(escaped, character, end);
    // \uXXXX: one that is no surrogate, or a high and a low one.
    const unicode = builder.text(escaped, "u");
    const [last, lastTwo, lastThree] = [builder.state(), builder.state(), builder.state()];
    hexadecimal(builder, last, end);
    hexadecimal(builder, lastTwo, last);
    hexadecimal(builder, lastThree, lastTwo);
    const surrogate = builder.state();
    for (const [low, high] of ["09", "AC", "ac", "EF", "ef"].map((pair) => Array.from(Buffer.from(pair)))) {
      builder.byte(unicode, low!, high!, lastThree);
    }
    for (const letter of "Dd") builder.text(unicode, letter, surrogate);
    builder.byte(surrogate, 0x30, 0x37, lastTwo);
    const high = builder.state();
    for (const digit of "89ABab") builder.text(surrogate, digit, high);
    const highLast = builder.state();
    const pairEnd = builder.state();
    hexadecimal(builder, high, highLast);
    hexadecimal(builder, highLast, pairEnd);
    const low = builder.text(pairEnd, "\\u");
    const lowThird = builder.state();
    for (const letter of "Dd") builder.text(low, letter, lowThird);
    for (const digit of "CDEFcdef") builder.text(lowThird, digit, lastTwo);
  }

  #writeString(): void {
    const { builder } = this;
    const inside = builder.text(builder.start(this.string), '"');
    this.stringCharacter(inside, inside);
    builder.text(inside, '"', builder.end(this.string));
  }

  #writeArray(): void {
    const { builder } = this;
    const open = builder.text(builder.start(this.array), "[");
    const more = builder.state();
    builder.call(open, this.value, more);
    builder.call(this.separator(more, ","), this.value, more);
    for (const state of [open, more]) builder.text(state, "]", builder.end(this.array));
  }

  #writeObject(): void {
    const { builder } = this;
    const open = builder.text(builder.start(this.object), "{");
    const key = builder.state();
    const more = builder.state();
    builder.empty(open, key);
    const afterKey = builder.state();
    builder.call(key, this.string, afterKey);
    builder.call(this.separator(afterKey, ":"), this.value, more);
    builder.empty(this.separator(more, ","), key);
    for (const state of [open, more]) builder.text(state, "}", builder.end(this.object));
  }
}

function hexadecimal(builder: NetworkBuilder, from: number, to: number): void {
  builder.byte(from, 0x30, 0x39, to);
  builder.byte(from, 0x41, 0x46, to);
  builder.byte(from, 0x61, 0x66, to);
}
