import { allCodePoints } from "./code_points.ts";
import { limits } from "./limits.ts";
import type { Pattern } from "./pattern.ts";
import { GrammarProblem } from "./problem.ts";

/**
 * A deterministic finite automaton over code points. Every state lies on a way to an accepting one, but perhaps
 * the start. `transitions[state]` is sorted triples `[low, high, target, …]`.
 */
export interface TextAutomaton {
  readonly start: number;
  readonly accepting: readonly boolean[];
  readonly transitions: readonly (readonly number[])[];
}

/** The patterns' automaton before it is deterministic: one leaving set a state, and empty edges. */
class PatternStates {
  readonly empty: number[][] = [];
  /** Edges that may be taken only at the beginning, and only at the end, of the text. */
  readonly atStart: number[][] = [];
  readonly atEnd: number[][] = [];
  readonly sets: (readonly number[] | undefined)[] = [];
  readonly targets: number[] = [];
  /** Whether `$` stands anywhere. */
  hasEnds = false;

  add(): number {
    this.empty.push([]);
    this.atStart.push([]);
    this.atEnd.push([]);
    this.sets.push(undefined);
    this.targets.push(-1);
    return this.empty.length - 1;
  }

  /** Adds `pattern` after `from`. Returns where it ends. */
  append(pattern: Pattern, from: number): number {
    switch (pattern.kind) {
      case "set": {
        const state = this.add();
        const to = this.add();
        this.empty[from]!.push(state);
        this.sets[state] = pattern.set;
        this.targets[state] = to;
        return to;
      }
      case "sequence": {
        let state = from;
        for (const part of pattern.parts) state = this.append(part, state);
        return state;
      }
      case "choice": {
        const to = this.add();
        for (const option of pattern.options) {
          const entry = this.add();
          this.empty[from]!.push(entry);
          this.empty[this.append(option, entry)]!.push(to);
        }
        return to;
      }
      case "repeat":
        return this.#repeat(pattern, from);
      case "start": {
        const to = this.add();
        this.atStart[from]!.push(to);
        return to;
      }
      case "end": {
        const to = this.add();
        this.atEnd[from]!.push(to);
        this.hasEnds = true;
        return to;
      }
    }
  }

  #repeat(pattern: Pattern & { kind: "repeat" }, from: number): number {
    // A state before every copy counts copies of nothing too.
    let state = from;
    for (let i = 0; i < pattern.minimum; i++) {
      const entry = this.add();
      this.empty[state]!.push(entry);
      state = this.append(pattern.body, entry);
    }
    const to = this.add();
    if (pattern.maximum === Number.POSITIVE_INFINITY) {
      const loop = this.add();
      this.empty[state]!.push(loop);
      this.empty[this.append(pattern.body, loop)]!.push(loop);
      this.empty[loop]!.push(to);
      return to;
    }
    this.empty[state]!.push(to);
    for (let i = pattern.minimum; i < pattern.maximum; i++) {
      const entry = this.add();
      this.empty[state]!.push(entry);
      state = this.append(pattern.body, entry);
      this.empty[state]!.push(to);
    }
    return to;
  }
}

/** States that a pattern has with its repetitions written out, about. */
function sizeOf(pattern: Pattern): number {
  switch (pattern.kind) {
    case "set":
      return 2;
    case "sequence":
      return pattern.parts.reduce((sum, part) => sum + sizeOf(part), 0);
    case "choice":
      return pattern.options.reduce((sum, option) => sum + 1 + sizeOf(option), 1);
    case "repeat": {
      const copies = pattern.maximum === Number.POSITIVE_INFINITY ? pattern.minimum + 1 : pattern.maximum;
      return (sizeOf(pattern.body) + 1) * copies + 1;
    }
    case "start":
    case "end":
      return 1;
  }
}

/** Counts the work that one request's patterns take, and stops it. */
export class WorkBudget {
  #work = 0;

  /** @throws GrammarProblem where it is used up */
  spend(amount: number): void {
    this.#work += amount;
    if (this.#work > limits.patternWork) throw tooComplex();
  }
}

function tooComplex(): GrammarProblem {
  return new GrammarProblem(
    "the regular expression is too complex: making it deterministic takes too many states",
    {
      expected: `at most ${limits.deterministicStates} states`,
      hint: "use smaller repetition counts and fewer alternatives that begin alike",
    },
  );
}

/**
 * The automaton of a pattern, by the subset construction.
 * @param options.search whether the pattern may match anywhere within the text (`pattern` of JSON schema) instead
 * of matching all of it
 * @throws GrammarProblem where that takes more states or work than `limits` allow
 */
export function determinize(
  pattern: Pattern,
  options: { readonly search?: boolean; readonly budget?: WorkBudget } = {},
): TextAutomaton {
  if (sizeOf(pattern) > limits.patternStates) {
    throw new GrammarProblem("the regular expression is too large with its repetitions written out", {
      expected: `at most ${limits.patternStates} states`,
      hint: "use smaller repetition counts, or minLength and maxLength",
    });
  }
  const states = new PatternStates();
  const first = states.add();
  let entry = first;
  if (options.search === true) {
    entry = states.add();
    states.sets[first] = allCodePoints;
    states.targets[first] = first;
    states.empty[first]!.push(entry);
  }
  const last = states.append(pattern, entry);
  if (options.search === true) {
    states.sets[last] = allCodePoints;
    states.targets[last] = last;
  }

  const work = options.budget ?? new WorkBudget();
  work.spend(states.empty.length);
  const marks = new Int32Array(states.empty.length);
  let mark = 0;
  /** States that `seeds` reach over empty edges. */
  const closure = (seeds: readonly number[], atStart: boolean, atEnd: boolean): number[] => {
    mark++;
    const found: number[] = [];
    const stack: number[] = [];
    const visit = (state: number) => {
      if (marks[state] === mark) return;
      marks[state] = mark;
      stack.push(state);
    };
    for (const seed of seeds) visit(seed);
    while (stack.length > 0) {
      const state = stack.pop()!;
      found.push(state);
      for (const next of states.empty[state]!) visit(next);
      if (atStart) for (const next of states.atStart[state]!) visit(next);
      if (atEnd) for (const next of states.atEnd[state]!) visit(next);
    }
    work.spend(found.length);
    return found;
  };

  const numbers = new Map<string, number>();
  const sets: number[][] = [];
  const accepting: boolean[] = [];
  const transitions: number[][] = [];
  const intern = (seeds: readonly number[], atStart: boolean): number => {
    const members = closure(seeds, atStart, false);
    const leaving = members.filter((state) => states.sets[state] !== undefined).sort((a, b) => a - b);
    const accepts = (states.hasEnds ? closure(seeds, atStart, true) : members).includes(last);
    const key = `${accepts ? "+" : "-"}${leaving.join(",")}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = sets.length;
      if (number >= limits.deterministicStates) throw tooComplex();
      numbers.set(key, number);
      sets.push(leaving);
      accepting.push(accepts);
      transitions.push([]);
    }
    return number;
  };

  const start = intern([first], true);
  for (let state = 0; state < sets.length; state++) {
    const row = transitions[state]!;
    let previousKey = "";
    for (const { low, high, targets } of splitByTarget(sets[state]!, states, work)) {
      const key = targets.join(",");
      const target = key === previousKey ? row.at(-1)! : intern(targets, false);
      previousKey = key;
      pushTransition(row, low, high, target);
    }
  }
  return trimmed({ start, accepting, transitions });
}

/** The ranges on which the leaving sets of `members` agree, with the targets of each. */
function splitByTarget(
  members: readonly number[],
  states: PatternStates,
  work: WorkBudget,
): { low: number; high: number; targets: number[] }[] {
  const points = new Set<number>();
  for (const member of members) {
    const set = states.sets[member]!;
    for (let i = 0; i < set.length; i += 2) points.add(set[i]!).add(set[i + 1]! + 1);
  }
  const bounds = [...points].sort((a, b) => a - b);
  work.spend(bounds.length);
  const place = new Map(bounds.map((point, index) => [point, index]));
  const targets: Set<number>[] = bounds.map(() => new Set());
  for (const member of members) {
    const set = states.sets[member]!;
    for (let i = 0; i < set.length; i += 2) {
      const end = place.get(set[i + 1]! + 1)!;
      const begin = place.get(set[i]!)!;
      work.spend(end - begin);
      for (let interval = begin; interval < end; interval++) targets[interval]!.add(states.targets[member]!);
    }
  }
  const result: { low: number; high: number; targets: number[] }[] = [];
  for (let i = 0; i + 1 < bounds.length; i++) {
    if (targets[i]!.size === 0) continue;
    result.push({
      low: bounds[i]!,
      high: bounds[i + 1]! - 1,
      targets: [...targets[i]!].sort((a, b) => a - b),
    });
  }
  return result;
}

function pushTransition(row: number[], low: number, high: number, target: number): void {
  if (row.length > 0 && row.at(-1) === target && row.at(-2) === low - 1) row[row.length - 2] = high;
  else row.push(low, high, target);
}

/** Without the states from which no accepting state can be reached. */
function trimmed(automaton: TextAutomaton): TextAutomaton {
  const { accepting, transitions } = automaton;
  const before: number[][] = accepting.map(() => []);
  transitions.forEach((row, state) => {
    for (let i = 2; i < row.length; i += 3) before[row[i]!]!.push(state);
  });
  const useful = accepting.slice();
  const stack = useful.flatMap((accepts, state) => (accepts ? [state] : []));
  while (stack.length > 0) {
    for (const state of before[stack.pop()!]!) {
      if (useful[state]) continue;
      useful[state] = true;
      stack.push(state);
    }
  }
  return {
    start: automaton.start,
    accepting,
    transitions: transitions.map((row) => {
      const kept: number[] = [];
      for (let i = 0; i < row.length; i += 3) {
        if (useful[row[i + 2]!]) kept.push(row[i]!, row[i + 1]!, row[i + 2]!);
      }
      return kept;
    }),
  };
}

/** Whether no text at all is accepted. */
export function acceptsNothing(automaton: TextAutomaton): boolean {
  return !automaton.accepting[automaton.start] && automaton.transitions[automaton.start]!.length === 0;
}

/** Whether a text is accepted. */
export function accepts(automaton: TextAutomaton, text: string): boolean {
  let state = automaton.start;
  for (const character of text) {
    const target = transitionTo(automaton.transitions[state]!, character.codePointAt(0)!);
    if (target < 0) return false;
    state = target;
  }
  return automaton.accepting[state]!;
}

function transitionTo(row: readonly number[], point: number): number {
  for (let i = 0; i < row.length; i += 3) if (point >= row[i]! && point <= row[i + 1]!) return row[i + 2]!;
  return -1;
}

/** Texts that both accept. @throws GrammarProblem where that takes too many states */
export function intersect(a: TextAutomaton, b: TextAutomaton, budget = new WorkBudget()): TextAutomaton {
  return product(a, b, true, budget);
}

/** Texts that `a` accepts and `b` does not. @throws GrammarProblem where that takes too many states */
export function subtract(a: TextAutomaton, b: TextAutomaton, budget = new WorkBudget()): TextAutomaton {
  return product(a, b, false, budget);
}

function product(a: TextAutomaton, b: TextAutomaton, both: boolean, work: WorkBudget): TextAutomaton {
  const numbers = new Map<string, number>();
  const pairs: (readonly [number, number])[] = [];
  const accepting: boolean[] = [];
  const transitions: number[][] = [];
  // Where `b` has no way to go on its state is -1: dead for `both`, free for the difference.
  const intern = (left: number, right: number): number => {
    const key = `${left},${right}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = pairs.length;
      if (number >= limits.deterministicStates) throw tooComplex();
      numbers.set(key, number);
      pairs.push([left, right]);
      const rightAccepts = right >= 0 && b.accepting[right]!;
      accepting.push(a.accepting[left]! && rightAccepts === both);
      transitions.push([]);
    }
    return number;
  };
  intern(a.start, b.start);
  for (let state = 0; state < pairs.length; state++) {
    const [left, right] = pairs[state]!;
    const rightRow = right < 0 ? [] : b.transitions[right]!;
    const leftRow = a.transitions[left]!;
    work.spend(leftRow.length + rightRow.length);
    let j = 0;
    for (let i = 0; i < leftRow.length; i += 3) {
      let low = leftRow[i]!;
      const high = leftRow[i + 1]!;
      const target = leftRow[i + 2]!;
      while (j < rightRow.length && rightRow[j + 1]! < low) j += 3;
      let k = j;
      while (low <= high) {
        if (k < rightRow.length && rightRow[k]! <= low) {
          const end = Math.min(high, rightRow[k + 1]!);
          pushTransition(transitions[state]!, low, end, intern(target, rightRow[k + 2]!));
          low = end + 1;
          k += 3;
        } else {
          const end = k < rightRow.length ? Math.min(high, rightRow[k]! - 1) : high;
          if (!both) pushTransition(transitions[state]!, low, end, intern(target, -1));
          low = end + 1;
        }
      }
    }
  }
  return trimmed({ start: 0, accepting, transitions });
}

/** Texts of `minimum` to `maximum` characters. @throws GrammarProblem for more than the limit of states */
export function lengthAutomaton(minimum: number, maximum: number): TextAutomaton {
  const last = maximum === Number.POSITIVE_INFINITY ? minimum : maximum;
  if (last >= limits.deterministicStates) throw tooComplex();
  const accepting: boolean[] = [];
  const transitions: number[][] = [];
  for (let length = 0; length <= last; length++) {
    accepting.push(length >= minimum);
    const target = length < last ? length + 1 : maximum === Number.POSITIVE_INFINITY ? length : -1;
    transitions.push([]);
    for (let i = 0; target >= 0 && i < allCodePoints.length; i += 2) {
      transitions[length]!.push(allCodePoints[i]!, allCodePoints[i + 1]!, target);
    }
  }
  return trimmed({ start: 0, accepting, transitions });
}

/** Exactly the given texts: a trie. */
export function textsAutomaton(texts: readonly string[]): TextAutomaton {
  const accepting: boolean[] = [false];
  const children: Map<number, number>[] = [new Map()];
  for (const text of texts) {
    let state = 0;
    for (const character of text) {
      const point = character.codePointAt(0)!;
      let next = children[state]!.get(point);
      if (next === undefined) {
        next = accepting.length;
        accepting.push(false);
        children.push(new Map());
        children[state]!.set(point, next);
      }
      state = next;
    }
    accepting[state] = true;
  }
  const transitions = children.map((map) =>
    [...map].sort(([a], [b]) => a - b).flatMap(([point, target]) => [point, point, target]),
  );
  return { start: 0, accepting, transitions };
}
