import { InternalError } from "../../base/errors.ts";
import { limits } from "./limits.ts";
import { GrammarProblem } from "./problem.ts";

/**
 * A grammar over bytes as a recursive transition network (W. A. Woods, 1970): every rule is a finite automaton
 * whose edges take a byte, a special token, nothing, or a whole text of another rule. Called rules never match
 * the empty text, and no rule begins with itself, so one pass over the text without looking back recognises it.
 */
export interface Network {
  /** First and last state of every rule. */
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  /** The rule that the whole text matches. */
  readonly root: number;
  /** `[low, high, target, …]` of each state. */
  readonly bytes: readonly (readonly number[])[];
  /** Targets of each state that need no byte. */
  readonly empty: readonly (readonly number[])[];
  /** `[rule, target, …]` of each state. */
  readonly calls: readonly (readonly number[])[];
  /** `[index in specials, target, …]` of each state. */
  readonly specials: readonly (readonly number[])[];
  /** The texts of special tokens that the grammar names. */
  readonly specialTexts: readonly string[];
  /** Place of each rule in an order in which a rule comes before those that it may begin with. */
  readonly order: Int32Array;
  /** States below this number belong to rules that every grammar has, under the same numbers. */
  readonly sharedStates: number;
  readonly counters: readonly Counter[];
}

/**
 * Consecutive states that count characters: state `first + i` has read i of them, `minimum` to `maximum` are
 * right. Far from both bounds the states are alike, as long as one token is concerned.
 */
export interface Counter {
  readonly first: number;
  readonly minimum: number;
  readonly maximum: number;
}

/** Writes a network state by state, within the limits. */
export class NetworkBuilder {
  readonly #bytes: number[][] = [];
  readonly #empty: number[][] = [];
  readonly #calls: number[][] = [];
  readonly #specials: number[][] = [];
  readonly #specialTexts: string[] = [];
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  readonly #names: string[] = [];
  readonly #counters: Counter[] = [];
  #edges = 0;
  #sharedStates = 0;

  get rules(): number {
    return this.#starts.length;
  }

  state(): number {
    if (this.#bytes.length >= limits.networkStates) this.#tooLarge();
    this.#bytes.push([]);
    this.#empty.push([]);
    this.#calls.push([]);
    this.#specials.push([]);
    return this.#bytes.length - 1;
  }

  /** Says that so many states are to come. @throws GrammarProblem where that is too many */
  expect(states: number): void {
    if (this.#bytes.length + states > limits.networkStates) this.#tooLarge();
  }

  /** A new rule. @param name where it comes from, for messages */
  rule(name: string): number {
    if (this.#starts.length >= limits.rules) {
      throw new GrammarProblem("the schema has too many combinations of its parts", {
        expected: `at most ${limits.rules} rules`,
        hint: "use fewer alternatives within alternatives",
      });
    }
    this.#names.push(name);
    this.#starts.push(this.state());
    this.#ends.push(this.state());
    return this.#starts.length - 1;
  }

  start(rule: number): number {
    return this.#starts[rule]!;
  }

  end(rule: number): number {
    return this.#ends[rule]!;
  }

  byte(from: number, low: number, high: number, to: number): void {
    this.#countEdge();
    this.#bytes[from]!.push(low, high, to);
  }

  empty(from: number, to: number): void {
    this.#countEdge();
    this.#empty[from]!.push(to);
  }

  /** @param rule must not match the empty text */
  call(from: number, rule: number, to: number): void {
    this.#countEdge();
    this.#calls[from]!.push(rule, to);
  }

  /** The special token of a text, such as `[TOOL_CALLS]`; nothing where the vocabulary has none. */
  special(from: number, text: string, to: number): void {
    this.#countEdge();
    let index = this.#specialTexts.indexOf(text);
    if (index < 0) index = this.#specialTexts.push(text) - 1;
    this.#specials[from]!.push(index, to);
  }

  /** The UTF-8 of a text. Returns the state behind it, or ends in `to`. */
  text(from: number, text: string, to?: number): number {
    const bytes = Buffer.from(text);
    let state = from;
    bytes.forEach((byte, index) => {
      const next = to !== undefined && index === bytes.length - 1 ? to : this.state();
      this.byte(state, byte, byte, next);
      state = next;
    });
    if (bytes.length === 0 && to !== undefined) this.empty(from, to);
    return to ?? state;
  }

  counter(counter: Counter): void {
    this.#counters.push(counter);
  }

  /** Says that the states so far are the same in every grammar. */
  endOfShared(): void {
    this.#sharedStates = this.#bytes.length;
  }

  /**
   * The network whose texts are those of `root`. Ways that lead nowhere are left out.
   * @throws GrammarProblem where no text matches, or a rule begins with itself
   */
  finish(root: number): Network {
    const useful = this.#usefulStates();
    if (!useful[this.#starts[root]!]) {
      throw new GrammarProblem("nothing can match: the schema contradicts itself or never ends", {
        where: this.#names[root]!,
      });
    }
    const callable = (rule: number) => useful[this.#starts[rule]!]!;
    const network = {
      starts: Int32Array.from(this.#starts),
      ends: Int32Array.from(this.#ends),
      root,
      bytes: this.#bytes.map((row) => filterRow(row, 3, (i) => useful[row[i + 2]!]!)),
      empty: this.#empty.map((row) => row.filter((target) => useful[target]!)),
      calls: this.#calls.map((row) => filterRow(row, 2, (i) => callable(row[i]!) && useful[row[i + 1]!]!)),
      specials: this.#specials.map((row) => filterRow(row, 2, (i) => useful[row[i + 1]!]!)),
      specialTexts: this.#specialTexts,
      sharedStates: this.#sharedStates,
      counters: this.#counters,
    };
    return { ...network, order: this.#order(network) };
  }

  #countEdge(): void {
    if (++this.#edges > limits.networkEdges) this.#tooLarge();
  }

  #tooLarge(): never {
    throw new GrammarProblem("the schema is too large with its repetitions written out", {
      expected: `at most ${limits.networkStates} states and ${limits.networkEdges} edges`,
      hint: "use smaller bounds for lengths and items, or fewer properties",
    });
  }

  /** Whether the end of its rule can be reached from each state. */
  #usefulStates(): boolean[] {
    const count = this.#bytes.length;
    const before: number[][] = Array.from({ length: count }, () => []);
    const callers: number[][] = this.#starts.map(() => []);
    const callsBefore: number[][] = Array.from({ length: count }, () => []);
    const ruleOfStart = new Map(this.#starts.map((state, rule) => [state, rule]));
    for (let state = 0; state < count; state++) {
      const bytes = this.#bytes[state]!;
      for (let i = 2; i < bytes.length; i += 3) before[bytes[i]!]!.push(state);
      for (const target of this.#empty[state]!) before[target]!.push(state);
      const specials = this.#specials[state]!;
      for (let i = 1; i < specials.length; i += 2) before[specials[i]!]!.push(state);
      const calls = this.#calls[state]!;
      for (let i = 0; i < calls.length; i += 2) {
        callers[calls[i]!]!.push(state, calls[i + 1]!);
        callsBefore[calls[i + 1]!]!.push(state, calls[i]!);
      }
    }
    const useful = new Array<boolean>(count).fill(false);
    const stack: number[] = [];
    const mark = (state: number) => {
      if (useful[state]) return;
      useful[state] = true;
      stack.push(state);
    };
    for (const end of this.#ends) mark(end);
    while (stack.length > 0) {
      const state = stack.pop()!;
      for (const previous of before[state]!) mark(previous);
      const calls = callsBefore[state]!;
      for (let i = 0; i < calls.length; i += 2) if (useful[this.#starts[calls[i + 1]!]!]) mark(calls[i]!);
      const rule = ruleOfStart.get(state);
      if (rule === undefined) continue;
      const waiting = callers[rule]!;
      for (let i = 0; i < waiting.length; i += 2) if (useful[waiting[i + 1]!]) mark(waiting[i]!);
    }
    return useful;
  }

  /** A topological order of the rules by what they may begin with. */
  #order(network: Omit<Network, "order">): Int32Array {
    const rules = network.starts.length;
    const begins = Array.from({ length: rules }, (_, rule) => this.#beginnings(network, rule));
    const order = new Int32Array(rules).fill(-1);
    const state = new Uint8Array(rules);
    let next = rules;
    for (let first = 0; first < rules; first++) {
      if (state[first] !== 0) continue;
      const stack = [{ rule: first, child: 0 }];
      state[first] = 1;
      while (stack.length > 0) {
        const top = stack.at(-1)!;
        const child = begins[top.rule]![top.child++];
        if (child === undefined) {
          state[top.rule] = 2;
          order[top.rule] = --next;
          stack.pop();
        } else if (state[child] === 1) {
          throw new GrammarProblem("a $ref leads back to itself without anything in between", {
            where: this.#names[child]!,
            hint: "let the schema refer to itself only from within properties or items",
          });
        } else if (state[child] === 0) {
          state[child] = 1;
          stack.push({ rule: child, child: 0 });
        }
      }
    }
    return order;
  }

  #beginnings(network: Omit<Network, "order">, rule: number): number[] {
    const seen = new Set([network.starts[rule]!]);
    const called = new Set<number>();
    for (const state of seen) {
      if (state === network.ends[rule] && rule !== network.root) this.#checkNotEmpty(network, rule);
      for (const target of network.empty[state]!) seen.add(target);
      const calls = network.calls[state]!;
      for (let i = 0; i < calls.length; i += 2) called.add(calls[i]!);
    }
    return [...called];
  }

  #checkNotEmpty(network: Omit<Network, "order">, rule: number): void {
    const called = network.calls.some((row) => row.some((value, i) => i % 2 === 0 && value === rule));
    if (called)
      throw new InternalError(`the called grammar rule ${this.#names[rule]} matches the empty text`);
  }
}

function filterRow(row: readonly number[], width: number, keep: (index: number) => boolean): number[] {
  const kept: number[] = [];
  for (let i = 0; i < row.length; i += width) if (keep(i)) kept.push(...row.slice(i, i + width));
  return kept;
}
