import { nearest } from "../../base/suggest.ts";
import { limits } from "./limits.ts";
import { excerpt, GrammarProblem } from "./problem.ts";

/** A schema that is an object. */
export type SchemaObject = Readonly<Record<string, unknown>>;

/** What each keyword that is understood says. */
const keywords = [
  ["type", "enum", "const", "nullable"],
  ["properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"],
  ["items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"],
  ["minLength", "maxLength", "pattern", "format"],
  ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"],
  ["anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"],
].flat();

/** Keywords that say nothing about which values are right. */
export const annotations: ReadonlySet<string> = new Set([
  ...[
    "title",
    "description",
    "default",
    "examples",
    "example",
    "$comment",
    "$schema",
    "$id",
    "id",
    "deprecated",
  ],
  ...["readOnly", "writeOnly", "contentEncoding", "contentMediaType", "discriminator", "externalDocs", "xml"],
]);
const known = new Set(keywords);

/** Keywords of JSON schema that no grammar of reasonable size can hold to. */
const refused = new Set([
  ...["not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "propertyNames"],
  ...["contains", "minContains", "maxContains", "unevaluatedProperties", "unevaluatedItems"],
  ...["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$anchor", "contentSchema"],
]);

/** A schema within a document, and where it is. */
export interface SchemaPlace {
  readonly schema: SchemaObject | boolean;
  /** Such as `$.properties.name`. */
  readonly path: string;
}

/** A JSON schema as it came: checks its size, finds what `$ref` names, numbers its parts. */
export class SchemaDocument {
  readonly root: SchemaPlace;
  readonly #numbers = new Map<object, number>();
  readonly #checked = new Set<object>();

  /** @throws GrammarProblem for what is no schema or is too large */
  constructor(schema: unknown) {
    checkSize(schema);
    this.root = this.place(schema, "$");
  }

  /** A part of the document as a schema. @throws GrammarProblem where it is none */
  place(schema: unknown, path: string): SchemaPlace {
    if (typeof schema === "boolean") return { schema, path };
    if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
      throw new GrammarProblem("a schema is neither an object nor true or false", {
        where: path,
        received: excerpt(JSON.stringify(schema) ?? "undefined"),
      });
    }
    this.#checkKeywords(schema as SchemaObject, path);
    return { schema: schema as SchemaObject, path };
  }

  /** A number for each part of the document. */
  number(schema: object): number {
    let number = this.#numbers.get(schema);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(schema, number);
    }
    return number;
  }

  /** The schema that a `$ref` names. @throws GrammarProblem where there is none */
  resolve(reference: unknown, path: string): SchemaPlace {
    const problem = (summary: string) =>
      new GrammarProblem(summary, {
        where: `${path}.$ref`,
        expected: "a reference within the schema, such as #/$defs/name",
        received: excerpt(JSON.stringify(reference) ?? "undefined"),
      });
    if (typeof reference !== "string") throw problem("a $ref is not text");
    if (reference !== "#" && !reference.startsWith("#/")) throw problem("a $ref leads out of the schema");
    let value: unknown = this.root.schema;
    let target = "$";
    for (const part of reference.split("/").slice(1)) {
      let name: string;
      try {
        name = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
      } catch {
        throw problem("a $ref is not a valid pointer");
      }
      if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) {
        throw problem("a $ref names nothing");
      }
      value = (value as Record<string, unknown>)[name];
      target = childPath(target, name);
    }
    return this.place(value, target);
  }

  #checkKeywords(schema: SchemaObject, path: string): void {
    if (this.#checked.has(schema)) return;
    this.#checked.add(schema);
    for (const keyword of Object.keys(schema)) {
      if (known.has(keyword) || annotations.has(keyword) || keyword.startsWith("x-")) continue;
      const where = childPath(path, keyword);
      if (refused.has(keyword)) {
        throw new GrammarProblem(
          `the keyword ${keyword} is not supported in a schema for structured output`,
          {
            where,
          },
        );
      }
      const suggestion = nearest(keyword, known);
      throw new GrammarProblem(`the schema has an unknown keyword ${JSON.stringify(excerpt(keyword, 40))}`, {
        where,
        ...(suggestion === undefined ? {} : { hint: `did you mean ${JSON.stringify(suggestion)}?` }),
      });
    }
  }
}

/** The path of a part. */
export function childPath(path: string, key: string | number): string {
  if (typeof key === "number") return `${path}[${key}]`;
  return /^[$A-Za-z_][$\w-]*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(excerpt(key, 40))}]`;
}

/** @throws GrammarProblem for a schema with too many values or levels, without recursion of its own */
function checkSize(schema: unknown): void {
  let level: unknown[] = [schema];
  let count = 0;
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > limits.schemaDepth) {
      throw new GrammarProblem("the schema is nested too deeply", {
        expected: `at most ${limits.schemaDepth} levels`,
      });
    }
    count += level.length;
    if (count > limits.schemaValues) {
      throw new GrammarProblem("the schema is too large", {
        expected: `at most ${limits.schemaValues} values`,
      });
    }
    const next: unknown[] = [];
    for (const value of level) {
      if (typeof value !== "object" || value === null) continue;
      for (const child of Array.isArray(value) ? value : Object.values(value)) next.push(child);
    }
    level = next;
  }
}
