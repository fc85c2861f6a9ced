import { allCodePoints, type CodePoints, intersection, utf8Sequences } from "./code_points.ts";
import type { NetworkBuilder } from "./network.ts";
import type { TextAutomaton } from "./text_automaton.ts";

/** How characters are written: as they are, or as within a JSON string by `JSON.stringify`. */
export type Spelling = "plain" | "quoted";

const ascii: CodePoints = [0x00, 0x7f];
/** ASCII characters that stand for themselves within JSON strings. */
const unescaped: CodePoints = [0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f];
const needEscape: CodePoints = [0x00, 0x1f, 0x22, 0x22, 0x5c, 0x5c];
const beyondAscii: CodePoints = intersection(allCodePoints, [0x80, 0x10ffff]);

/** Writes texts of code points into a network as bytes. Rules for sets of characters are made once and shared. */
export class TextRules {
  readonly #builder: NetworkBuilder;
  readonly #rules = new Map<string, number>();

  constructor(builder: NetworkBuilder) {
    this.#builder = builder;
  }

  /** An edge from `from` to `to` that takes one character of the set. */
  character(from: number, set: CodePoints, to: number, spelling: Spelling): void {
    const direct = intersection(set, spelling === "quoted" ? unescaped : ascii);
    for (let i = 0; i < direct.length; i += 2) this.#builder.byte(from, direct[i]!, direct[i + 1]!, to);
    const escaped = spelling === "quoted" ? intersection(set, needEscape) : [];
    const long = intersection(set, beyondAscii);
    if (escaped.length + long.length > 0) this.#builder.call(from, this.#longRule(escaped, long), to);
  }

  /** The texts of an automaton between two states. */
  automaton(automaton: TextAutomaton, from: number, to: number, spelling: Spelling): void {
    const states = automaton.accepting.map(() => -1);
    const stateOf = (state: number) => {
      if (states[state]! < 0) states[state] = this.#builder.state();
      return states[state]!;
    };
    this.#builder.empty(from, stateOf(automaton.start));
    automaton.transitions.forEach((row, state) => {
      const sets = new Map<number, number[]>();
      for (let i = 0; i < row.length; i += 3) {
        const set = sets.get(row[i + 2]!) ?? [];
        set.push(row[i]!, row[i + 1]!);
        sets.set(row[i + 2]!, set);
      }
      for (const [target, set] of sets) this.character(stateOf(state), set, stateOf(target), spelling);
    });
    automaton.accepting.forEach((accepts, state) => {
      if (accepts) this.#builder.empty(stateOf(state), to);
    });
  }

  /** A rule for characters of more than one byte: those that are escaped, and those beyond ASCII. */
  #longRule(escaped: CodePoints, long: CodePoints): number {
    const key = `${escaped.join(",")};${long.join(",")}`;
    const known = this.#rules.get(key);
    if (known !== undefined) return known;
    const builder = this.#builder;
    const rule = builder.rule("a character");
    this.#rules.set(key, rule);
    const start = builder.start(rule);
    const end = builder.end(rule);
    for (let i = 0; i < escaped.length; i += 2) {
      for (let point = escaped[i]!; point <= escaped[i + 1]!; point++) {
        builder.text(start, JSON.stringify(String.fromCodePoint(point)).slice(1, -1), end);
      }
    }
    addSequences(builder, long, start, end);
    return rule;
  }
}

/** The UTF-8 of a set of characters. Sequences that end alike share their last states. */
export function addSequences(builder: NetworkBuilder, set: CodePoints, from: number, to: number): void {
  const suffixes = new Map<string, number>();
  for (const sequence of utf8Sequences(set)) {
    let target = to;
    for (let i = sequence.length - 2; i > 0; i -= 2) {
      const key = sequence.slice(i).join(",");
      let state = suffixes.get(key);
      if (state === undefined) {
        state = builder.state();
        builder.byte(state, sequence[i]!, sequence[i + 1]!, target);
        suffixes.set(key, state);
      }
      target = state;
    }
    builder.byte(from, sequence[0]!, sequence[1]!, target);
  }
}
