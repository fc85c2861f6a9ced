import { limits } from "./limits.ts";
import { excerpt, GrammarProblem } from "./problem.ts";
import {
  annotations,
  childPath,
  type SchemaDocument,
  type SchemaObject,
  type SchemaPlace,
} from "./schema_document.ts";

/**
 * A schema, or a part of one: `all` of it; its `facts` without anyOf, oneOf, allOf and $ref; or only its `anyOf` or
 * its `oneOf`. A value must match all parts of a list of them: that is how allOf, $ref beside other keywords, and
 * alternatives beside other keywords are put together.
 */
export interface Part extends SchemaPlace {
  readonly part: "all" | "facts" | "anyOf" | "oneOf";
}

/** A schema with keywords of its own. */
export interface Fact {
  readonly schema: SchemaObject;
  readonly path: string;
}

/** A list of parts, taken apart. */
export interface Flattened {
  readonly facts: readonly Fact[];
  /** Alternatives, of which one must match, of each anyOf and oneOf. */
  readonly alternatives: readonly (readonly [Part, readonly Part[]])[];
  /** Whether `false` is among them. */
  readonly impossible: boolean;
}

const combinators = new Set(["anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"]);

/** A key that equal lists of parts share. */
export function keyOf(document: SchemaDocument, parts: readonly Part[]): string {
  const keys = parts.map(({ schema, part }) =>
    typeof schema === "boolean" ? String(schema) : `${document.number(schema)}${part}`,
  );
  return [...new Set(keys)].sort().join(" ");
}

/**
 * Follows $ref and allOf until only facts and alternatives are left.
 * @throws GrammarProblem for a $ref or allOf that leads back to itself
 */
export function flatten(document: SchemaDocument, parts: readonly Part[]): Flattened {
  const facts = new Map<SchemaObject, Fact>();
  const alternatives = new Map<string, readonly [Part, readonly Part[]]>();
  const entered = new Set<SchemaObject>();
  const done = new Set<SchemaObject>();
  let impossible = false;

  const addAlternatives = (schema: SchemaObject, path: string, keyword: "anyOf" | "oneOf"): void => {
    const key = `${document.number(schema)}${keyword}`;
    if (alternatives.has(key)) return;
    const options = schemaList(document, schema[keyword], childPath(path, keyword));
    alternatives.set(key, [
      { schema, path, part: keyword },
      options.map((place) => ({ ...place, part: "all" as const })),
    ]);
  };

  const visit = ({ schema, path, part }: Part): void => {
    if (schema === false) impossible = true;
    if (typeof schema === "boolean") return;
    if (part === "anyOf" || part === "oneOf") {
      addAlternatives(schema, path, part);
      return;
    }
    if (hasFacts(schema)) facts.set(schema, { schema, path });
    if (part === "facts" || done.has(schema)) return;
    if (entered.has(schema)) {
      throw new GrammarProblem("a $ref leads back to itself without anything in between", {
        where: path,
        hint: "let the schema refer to itself only from within properties or items",
      });
    }
    if (entered.size > limits.schemaDepth * 10) {
      throw new GrammarProblem("a chain of $ref and allOf is too long", { where: path });
    }
    entered.add(schema);
    if ("$ref" in schema) visit({ ...document.resolve(schema.$ref, path), part: "all" });
    if ("allOf" in schema) {
      for (const place of schemaList(document, schema.allOf, childPath(path, "allOf"))) {
        visit({ ...place, part: "all" });
      }
    }
    if ("anyOf" in schema) addAlternatives(schema, path, "anyOf");
    if ("oneOf" in schema) addAlternatives(schema, path, "oneOf");
    entered.delete(schema);
    done.add(schema);
  };
  for (const part of parts) visit(part);
  return { facts: [...facts.values()], alternatives: [...alternatives.values()], impossible };
}

function hasFacts(schema: SchemaObject): boolean {
  return Object.keys(schema).some(
    (keyword) => !combinators.has(keyword) && !annotations.has(keyword) && !keyword.startsWith("x-"),
  );
}

function schemaList(document: SchemaDocument, value: unknown, path: string): SchemaPlace[] {
  if (!Array.isArray(value) || value.length === 0) throw wrong(path, "a list of at least one schema", value);
  return value.map((schema: unknown, index) => document.place(schema, childPath(path, index)));
}

/** A keyword whose value is not what it must be. */
export function wrong(path: string, expected: string, received: unknown): GrammarProblem {
  return new GrammarProblem("a keyword of the schema has a wrong value", {
    where: path,
    expected,
    received: excerpt(JSON.stringify(received) ?? "undefined"),
  });
}

/** The value of a keyword that is a whole number of at least 0. */
export function count(fact: Fact, keyword: string): number | undefined {
  const value = fact.schema[keyword];
  if (value === undefined) return undefined;
  if (!Number.isSafeInteger(value) || (value as number) < 0) {
    throw wrong(childPath(fact.path, keyword), "a whole number of at least 0", value);
  }
  return value as number;
}

/** The largest of a keyword's values, or 0. */
export function largest(facts: readonly Fact[], keyword: string): number {
  return Math.max(0, ...facts.map((fact) => count(fact, keyword) ?? 0));
}

/** The smallest of a keyword's values, or infinity. */
export function smallest(facts: readonly Fact[], keyword: string): number {
  return Math.min(
    Number.POSITIVE_INFINITY,
    ...facts.map((fact) => count(fact, keyword) ?? Number.POSITIVE_INFINITY),
  );
}

/** Types of JSON values. */
export type JsonType = "string" | "integer" | "number" | "boolean" | "null" | "array" | "object";

const everyType: readonly JsonType[] = ["string", "number", "boolean", "null", "array", "object"];

/** The type that a keyword speaks of: it is assumed where no `type` is given. */
const typeOfKeyword: Readonly<Record<string, JsonType>> = {
  properties: "object",
  required: "object",
  additionalProperties: "object",
  patternProperties: "object",
  minProperties: "object",
  maxProperties: "object",
  items: "array",
  prefixItems: "array",
  additionalItems: "array",
  minItems: "array",
  maxItems: "array",
  uniqueItems: "array",
  minLength: "string",
  maxLength: "string",
  pattern: "string",
  format: "string",
  minimum: "number",
  maximum: "number",
  exclusiveMinimum: "number",
  exclusiveMaximum: "number",
  multipleOf: "number",
};

/** The types that a value may have. Keywords of one type, without a `type`, mean that type. */
export function typesOf(facts: readonly Fact[]): JsonType[] {
  let types: readonly JsonType[] | undefined;
  for (const fact of facts) {
    const own = declaredTypes(fact);
    if (own === undefined) continue;
    types = types === undefined ? own : narrowed(types, own);
  }
  if (types !== undefined) return [...new Set(types)];
  if (facts.some(({ schema }) => "enum" in schema || "const" in schema)) return [...everyType];
  const implied = new Set<JsonType>();
  for (const { schema } of facts) {
    for (const keyword of Object.keys(schema)) {
      const type = typeOfKeyword[keyword];
      if (type !== undefined) implied.add(type);
    }
  }
  return implied.size === 0 ? [...everyType] : [...implied];
}

function declaredTypes({ schema, path }: Fact): JsonType[] | undefined {
  if (!("type" in schema)) return undefined;
  const list = Array.isArray(schema.type) ? (schema.type as unknown[]) : [schema.type];
  const types: JsonType[] = [];
  for (const type of list) {
    if (type !== "integer" && !everyType.includes(type as JsonType)) {
      throw wrong(
        childPath(path, "type"),
        `one of ${[...everyType, "integer"].join(", ")}, or a list of them`,
        type,
      );
    }
    types.push(type as JsonType);
  }
  if (types.length === 0) throw wrong(childPath(path, "type"), "at least one type", schema.type);
  if (schema.nullable === true) types.push("null");
  return types.includes("number") ? types.filter((type) => type !== "integer") : types;
}

function narrowed(a: readonly JsonType[], b: readonly JsonType[]): JsonType[] {
  const result: JsonType[] = [];
  for (const type of a) {
    if (b.includes(type)) result.push(type);
    else if (type === "integer" && b.includes("number")) result.push("integer");
    else if (type === "number" && b.includes("integer")) result.push("integer");
  }
  return result;
}
