import { JsonRules } from "./json_rules.ts";
import type { Network } from "./network.ts";
import { PatternCache } from "./pattern_cache.ts";
import { writeArray, writeObject } from "./schema_containers.ts";
import { SchemaDocument } from "./schema_document.ts";
import { type Fact, flatten, type JsonType, keyOf, type Part, typesOf } from "./schema_facts.ts";
import {
  at,
  enumeratedValues,
  integerAutomaton,
  numberAutomaton,
  numberFacts,
  stringAutomaton,
  stringFacts,
  valuesPattern,
} from "./schema_scalars.ts";
import { determinize, type TextAutomaton, textsAutomaton } from "./text_automaton.ts";

/**
 * Writes the rules of a schema's values into a network. Every list of parts that a value must match becomes one
 * rule, made once, so recursive schemas become recursive rules.
 */
export class SchemaRules {
  readonly json: JsonRules;
  readonly document: SchemaDocument;
  readonly patterns: PatternCache;
  readonly #rules = new Map<string, number>();
  readonly #waiting: { rule: number; parts: readonly Part[] }[] = [];

  /** @throws GrammarProblem for what is no schema or is too large */
  constructor(json: JsonRules, schema: unknown, patterns = new PatternCache()) {
    this.json = json;
    this.patterns = patterns;
    this.document = new SchemaDocument(schema);
  }

  /** The rule of the whole schema, all that it needs written. @throws GrammarProblem for an unsupported schema */
  root(): number {
    const rule = this.rule([{ ...this.document.root, part: "all" }]);
    for (let next = this.#waiting.pop(); next !== undefined; next = this.#waiting.pop()) {
      this.#write(next.rule, next.parts);
    }
    return rule;
  }

  /** The rule of values that match all parts. It is written later. */
  rule(parts: readonly Part[]): number {
    const key = keyOf(this.document, parts);
    if (key === "true" || key === "") return this.json.value;
    let rule = this.#rules.get(key);
    if (rule === undefined) {
      rule = this.json.builder.rule(parts[0]!.path);
      this.#rules.set(key, rule);
      this.#waiting.push({ rule, parts });
    }
    return rule;
  }

  /** The rule of values that match all schemas. */
  ruleOf(places: readonly { schema: unknown; path: string }[]): number {
    return this.rule(
      places.map(({ schema, path }) => ({ ...this.document.place(schema, path), part: "all" })),
    );
  }

  /** An edge that takes any text of an automaton. */
  automaton(rule: number, automaton: TextAutomaton): void {
    const { builder, texts } = this.json;
    texts.automaton(automaton, builder.start(rule), builder.end(rule), "plain");
  }

  #write(rule: number, parts: readonly Part[]): void {
    const { facts, alternatives, impossible } = flatten(this.document, parts);
    if (impossible) return;
    const [first, ...others] = alternatives;
    if (first !== undefined) {
      const rest: Part[] = facts.map((fact) => ({ ...fact, part: "facts" as const }));
      for (const [part] of others) rest.push(part);
      for (const option of first[1]) this.#forward(rule, this.rule([option, ...rest]));
      return;
    }
    if (facts.length === 0) {
      this.#forward(rule, this.json.value);
      return;
    }
    const path = facts[0]!.path;
    const values = enumeratedValues(facts, this.patterns);
    if (values !== undefined) {
      this.#writeValues(rule, values, path);
      return;
    }
    for (const type of typesOf(facts)) this.#writeType(rule, type, facts, path);
  }

  #writeValues(rule: number, values: readonly unknown[], path: string): void {
    const simple = values.filter((value) => typeof value !== "object" || value === null);
    if (simple.length > 0) this.automaton(rule, textsAutomaton(simple.map((value) => JSON.stringify(value))));
    if (simple.length === values.length) return;
    const others = values.filter((value) => typeof value === "object" && value !== null);
    this.automaton(
      rule,
      at(path, () => determinize(valuesPattern(others), { budget: this.patterns.budget })),
    );
  }

  #forward(rule: number, to: number): void {
    this.json.builder.call(this.json.builder.start(rule), to, this.json.builder.end(rule));
  }

  #writeType(rule: number, type: JsonType, facts: readonly Fact[], path: string): void {
    const { json } = this;
    switch (type) {
      case "string":
        this.#writeString(rule, facts, path);
        return;
      case "integer":
      case "number": {
        const bounds = numberFacts(facts);
        const automaton = type === "integer" ? integerAutomaton(bounds, path) : numberAutomaton(bounds, path);
        if (automaton === undefined) this.#forward(rule, json[type]);
        else this.automaton(rule, automaton);
        return;
      }
      case "boolean":
      case "null":
        this.#forward(rule, json[type]);
        return;
      case "array":
        writeArray(this, rule, facts);
        return;
      case "object":
        writeObject(this, rule, facts);
        return;
    }
  }

  #writeString(rule: number, facts: readonly Fact[], path: string): void {
    const { json } = this;
    const { builder } = json;
    const strings = stringFacts(facts, this.patterns);
    const { minimum, maximum } = strings;
    if (minimum > maximum) return;
    if (strings.automata.length > 0) {
      const open = builder.text(builder.start(rule), '"');
      const close = builder.state();
      json.texts.automaton(stringAutomaton(strings, path, this.patterns), open, close, "quoted");
      builder.text(close, '"', builder.end(rule));
      return;
    }
    if (minimum === 0 && maximum === Number.POSITIVE_INFINITY) {
      this.#forward(rule, json.string);
      return;
    }
    at(path, () => {
      const bounded = maximum !== Number.POSITIVE_INFINITY;
      const last = bounded ? maximum : minimum;
      builder.expect(last);
      const first = builder.text(builder.start(rule), '"');
      let state = first;
      for (let length = 0; ; length++) {
        if (length >= minimum) builder.text(state, '"', builder.end(rule));
        if (length === last) break;
        // States of a counter stand side by side: the closing quote goes straight to the end, adding none.
        const next = builder.state();
        json.stringCharacter(state, next);
        state = next;
      }
      if (bounded) builder.counter({ first, minimum, maximum });
      else json.stringCharacter(state, state);
    });
  }
}

/**
 * A network of the JSON texts that match a schema.
 * @throws GrammarProblem naming the place of what is unsupported, wrong, or too large
 */
export function schemaNetwork(schema: unknown): Network {
  const json = new JsonRules();
  const rules = new SchemaRules(json, schema);
  return json.builder.finish(rules.root());
}
