import { GrammarProblem } from "./problem.ts";
import { childPath, type SchemaObject, type SchemaPlace } from "./schema_document.ts";
import { type Fact, wrong } from "./schema_facts.ts";
import type { SchemaRules } from "./schema_network.ts";
import { at, countBounds, quoted } from "./schema_scalars.ts";
import {
  accepts,
  acceptsNothing,
  lengthAutomaton,
  subtract,
  type TextAutomaton,
  textsAutomaton,
} from "./text_automaton.ts";

/** A property in the order in which it is written. */
interface Property {
  readonly name: string;
  readonly rule: number;
  readonly required: boolean;
}

/** Names that are not listed, and the rule of their values. */
interface OtherNames {
  /** undefined: any name. */
  readonly names: TextAutomaton | undefined;
  readonly rule: number;
}

/**
 * Objects: the properties in the order of `properties` (then those that only `required` names), each once, then
 * others where they may be. Without `additionalProperties` there are no others if any property is listed.
 */
export function writeObject(rules: SchemaRules, rule: number, facts: readonly Fact[]): void {
  const { builder } = rules.json;
  const properties = listedProperties(rules, facts);
  if (properties === undefined) return;
  const others = otherNames(
    rules,
    facts,
    properties.map(({ name }) => name),
  );
  const { minimum, maximum } = countBounds(facts, "minProperties", "maxProperties");
  if (minimum > maximum) return;
  const required = properties.filter((property) => property.required).length;
  const path = facts[0]!.path;
  const mapping = properties.length === 0;
  if (!mapping && maximum < properties.length + (others.length > 0 ? Number.POSITIVE_INFINITY : 0)) {
    throw new GrammarProblem("maxProperties is not supported beside properties", {
      where: childPath(path, "maxProperties"),
    });
  }
  if (minimum > Math.max(1, required)) {
    throw new GrammarProblem("minProperties of more than 1 and the required properties is not supported", {
      where: childPath(path, "minProperties"),
    });
  }

  const end = builder.end(rule);
  // `first`: nothing is written yet; `more`: something is, so a comma comes next.
  let first = builder.text(builder.start(rule), "{");
  let more = builder.state();
  for (const property of properties) {
    const nextFirst = builder.state();
    const nextMore = builder.state();
    const key = builder.state();
    builder.empty(first, key);
    builder.empty(rules.json.separator(more, ","), key);
    const afterKey = builder.text(key, JSON.stringify(property.name));
    builder.call(rules.json.separator(afterKey, ":"), property.rule, nextMore);
    if (!property.required) {
      builder.empty(first, nextFirst);
      builder.empty(more, nextMore);
    }
    first = nextFirst;
    more = nextMore;
  }
  if (minimum === 0) builder.text(first, "}", end);
  if (others.length === 0 || maximum === 0) {
    builder.text(more, "}", end);
    return;
  }
  const key = builder.state();
  builder.empty(first, key);
  if (maximum === Number.POSITIVE_INFINITY) {
    builder.text(more, "}", end);
    builder.empty(rules.json.separator(more, ","), key);
    writeOthers(rules, others, key, more);
    return;
  }
  at(path, () => builder.expect(maximum));
  let from = key;
  for (let written = 1; written <= maximum; written++) {
    const after = builder.state();
    writeOthers(rules, others, from, after);
    builder.text(after, "}", end);
    if (written < maximum) from = rules.json.separator(after, ",");
  }
}

function writeOthers(rules: SchemaRules, others: readonly OtherNames[], from: number, to: number): void {
  const { builder, texts, string } = rules.json;
  for (const { names, rule } of others) {
    const afterKey = builder.state();
    if (names === undefined) builder.call(from, string, afterKey);
    else {
      const close = builder.state();
      texts.automaton(names, builder.text(from, '"'), close, "quoted");
      builder.text(close, '"', afterKey);
    }
    builder.call(rules.json.separator(afterKey, ":"), rule, to);
  }
}

/** The schemas of `properties` of each fact. */
function propertiesOf({ schema, path }: Fact): SchemaObject {
  return objectOf(schema.properties, childPath(path, "properties"));
}

function objectOf(value: unknown, path: string): SchemaObject {
  if (value === undefined) return {};
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw wrong(path, "an object", value);
  return value as SchemaObject;
}

function requiredOf({ schema, path }: Fact): string[] {
  const names = schema.required ?? [];
  if (!Array.isArray(names) || names.some((name) => typeof name !== "string")) {
    throw wrong(childPath(path, "required"), "a list of names", names);
  }
  return names as string[];
}

interface NamePattern {
  readonly source: string;
  readonly automaton: TextAutomaton;
  readonly place: SchemaPlace;
}

const namePatternsOfSchema = new WeakMap<SchemaObject, NamePattern[]>();

function namePatterns(rules: SchemaRules, { schema, path }: Fact): NamePattern[] {
  let patterns = namePatternsOfSchema.get(schema);
  if (patterns === undefined) {
    patterns = readNamePatterns(rules, schema, childPath(path, "patternProperties"));
    namePatternsOfSchema.set(schema, patterns);
  }
  return patterns;
}

function readNamePatterns(rules: SchemaRules, schema: SchemaObject, where: string): NamePattern[] {
  return Object.entries(objectOf(schema.patternProperties, where)).map(([source, value]) => {
    const place = rules.document.place(value, childPath(where, source));
    return { source, place, automaton: at(place.path, () => rules.patterns.search(source)) };
  });
}

/**
 * What one fact says of the value of a name: the schemas that it must match.
 * @returns undefined where the name may not be there
 */
function schemasOfName(rules: SchemaRules, fact: Fact, name: string): SchemaPlace[] | undefined {
  const properties = propertiesOf(fact);
  const places: SchemaPlace[] = [];
  let listed = false;
  if (Object.hasOwn(properties, name)) {
    listed = true;
    places.push(rules.document.place(properties[name], childPath(childPath(fact.path, "properties"), name)));
  }
  for (const { automaton, place } of namePatterns(rules, fact)) {
    if (!accepts(automaton, name)) continue;
    listed = true;
    places.push(place);
  }
  if (listed) return places;
  const additional = additionalOf(rules, fact);
  if (additional?.schema === false) return undefined;
  return additional === undefined ? places : [additional];
}

function additionalOf(rules: SchemaRules, { schema, path }: Fact): SchemaPlace | undefined {
  if (schema.additionalProperties === undefined) return undefined;
  return rules.document.place(schema.additionalProperties, childPath(path, "additionalProperties"));
}

/** The listed properties; undefined where one that is required may not be there. */
function listedProperties(rules: SchemaRules, facts: readonly Fact[]): Property[] | undefined {
  const names = new Set(facts.flatMap((fact) => Object.keys(propertiesOf(fact))));
  const required = new Set(facts.flatMap(requiredOf));
  for (const name of required) names.add(name);
  const properties: Property[] = [];
  for (const name of names) {
    const places: SchemaPlace[] = [];
    let allowed = true;
    for (const fact of facts) {
      const own = schemasOfName(rules, fact, name);
      if (own === undefined) allowed = false;
      else places.push(...own);
    }
    if (!allowed && required.has(name)) {
      throw new GrammarProblem(`the property ${quoted(name)} is required and not allowed`, {
        where: childPath(facts[0]!.path, "required"),
      });
    }
    if (allowed) properties.push({ name, rule: rules.ruleOf(places), required: required.has(name) });
  }
  return properties;
}

/** Characters of names: those that JSON does not escape, or escapes in one way only. */
const anyName = lengthAutomaton(0, Number.POSITIVE_INFINITY);

/**
 * Names that are not listed, with what their values must be. A name is spelled in one way only, so that none of
 * the listed ones comes in disguise. Names that two patterns match are left out.
 */
function otherNames(rules: SchemaRules, facts: readonly Fact[], listed: readonly string[]): OtherNames[] {
  const patterns = facts.flatMap((fact) =>
    namePatterns(rules, fact).map((pattern) => ({ ...pattern, fact })),
  );
  const additional = facts.map((fact) => additionalOf(rules, fact));
  const closed = facts.map((_, index) => additional[index]?.schema === false);
  const path = facts[0]!.path;
  const result: OtherNames[] = [];
  const { budget } = rules.patterns;
  const listedNames = textsAutomaton(listed);
  for (const pattern of patterns) {
    // The other facts must allow the name too: by their additionalProperties.
    if (facts.some((fact, index) => fact !== pattern.fact && closed[index])) continue;
    const names = at(path, () => {
      let automaton = subtract(pattern.automaton, listedNames, budget);
      for (const other of patterns)
        if (other !== pattern) automaton = subtract(automaton, other.automaton, budget);
      return automaton;
    });
    if (acceptsNothing(names)) continue;
    const places = [pattern.place];
    facts.forEach((fact, index) => {
      const place = additional[index];
      if (fact !== pattern.fact && place !== undefined) places.push(place);
    });
    result.push({ names, rule: rules.ruleOf(places) });
  }
  const open =
    additional.some((place) => place !== undefined) || (listed.length === 0 && patterns.length === 0);
  if (!open || closed.some(Boolean)) return result;
  const places = additional.filter((place) => place !== undefined);
  const valueRule = rules.ruleOf(places);
  if (listed.length === 0 && patterns.length === 0) return [{ names: undefined, rule: valueRule }];
  const names = at(path, () =>
    patterns.reduce(
      (automaton, { automaton: other }) => subtract(automaton, other, budget),
      subtract(anyName, listedNames, budget),
    ),
  );
  result.push({ names, rule: valueRule });
  return result;
}

/** Arrays: prefixItems by place, then items, between minItems and maxItems. */
export function writeArray(rules: SchemaRules, rule: number, facts: readonly Fact[]): void {
  const { builder } = rules.json;
  for (const { schema, path } of facts) {
    if (schema.uniqueItems === undefined || schema.uniqueItems === false) continue;
    throw new GrammarProblem("uniqueItems is not supported in a schema for structured output", {
      where: childPath(path, "uniqueItems"),
    });
  }
  const { minimum, maximum } = countBounds(facts, "minItems", "maxItems");
  if (minimum > maximum) return;
  const prefixes = facts.map((fact) => prefixOf(fact));
  const placesAt = (index: number): SchemaPlace[] =>
    facts.flatMap((fact, i) => {
      const prefix = prefixes[i]!;
      if (index < prefix.list.length) {
        return [rules.document.place(prefix.list[index], childPath(prefix.path, index))];
      }
      const rest = restOf(fact);
      return rest === undefined ? [] : [rules.document.place(rest.schema, rest.path)];
    });
  const longest = Math.max(0, ...prefixes.map(({ list }) => list.length));
  // Up to `last` items are counted; past them the last state goes on by itself where there is no maximum.
  const bounded = maximum !== Number.POSITIVE_INFINITY;
  const last = bounded ? maximum : Math.max(longest, minimum, 1);
  const restRule = last >= longest ? rules.ruleOf(placesAt(longest)) : 0;
  const ruleAt = (index: number) => (index < longest ? rules.ruleOf(placesAt(index)) : restRule);

  let state = builder.text(builder.start(rule), "[");
  at(facts[0]!.path, () => {
    builder.expect(last);
    for (let items = 0; ; items++) {
      if (items >= minimum) builder.text(state, "]", builder.end(rule));
      if (items === last) break;
      const from = items === 0 ? state : rules.json.separator(state, ",");
      const next = builder.state();
      builder.call(from, ruleAt(items), next);
      state = next;
    }
    if (!bounded) builder.call(rules.json.separator(state, ","), restRule, state);
  });
}

function prefixOf({ schema, path }: Fact): { list: readonly unknown[]; path: string } {
  const keyword = Array.isArray(schema.items) ? "items" : "prefixItems";
  const list = schema[keyword] ?? [];
  if (!Array.isArray(list)) throw wrong(childPath(path, keyword), "a list of schemas", list);
  return { list: list as unknown[], path: childPath(path, keyword) };
}

/** The schema of items past the prefix. A list in `items`, as in older drafts, has it in additionalItems. */
function restOf({ schema, path }: Fact): { schema: unknown; path: string } | undefined {
  const keyword = Array.isArray(schema.items) ? "additionalItems" : "items";
  return schema[keyword] === undefined
    ? undefined
    : { schema: schema[keyword], path: childPath(path, keyword) };
}
