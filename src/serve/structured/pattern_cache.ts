import { parsePattern } from "./pattern_parser.ts";
import { determinize, type TextAutomaton, WorkBudget } from "./text_automaton.ts";

/** The regular expressions of one schema: each is made once, and all share one budget. */
export class PatternCache {
  readonly budget = new WorkBudget();
  readonly #automata = new Map<string, TextAutomaton>();

  /** The texts within which a regular expression matches. @throws GrammarProblem */
  search(source: string): TextAutomaton {
    let automaton = this.#automata.get(source);
    if (automaton === undefined) {
      automaton = determinize(parsePattern(source), { search: true, budget: this.budget });
      this.#automata.set(source, automaton);
    }
    return automaton;
  }
}
