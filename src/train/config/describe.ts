import { z } from "zod";
import { InternalError } from "../../base/errors.ts";
import { trainConfigSchema } from "./schema/schema.ts";

/** One key of the config, for the docs, `--help` and errors. */
export interface ConfigKey {
  /** Dotted path, such as `optimizer.params.lr`. */
  readonly path: string;
  /** What values it takes, in words: `integer >= 1`, `log | linear`, `section`. */
  readonly type: string;
  /** The value it has where the config does not say; undefined where there is none. */
  readonly default: unknown;
  /** Whether its section cannot do without it. */
  readonly required: boolean;
  readonly description: string;
  /** The types (of model, optimizer or schedule) that have it; undefined where all do. */
  readonly appliesTo: readonly string[] | undefined;
}

/** The parts of JSON Schema that zod emits for the config, with the metadata that the schema adds. */
interface JsonSchema {
  readonly type?: string | readonly string[];
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly oneOf?: readonly JsonSchema[];
  readonly anyOf?: readonly JsonSchema[];
  readonly items?: JsonSchema;
  readonly minItems?: number;
  readonly prefixItems?: readonly JsonSchema[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  /** Name of this member of a union of sections. */
  readonly variant?: string;
  /** Words for the type where the schema alone would not read well. */
  readonly typeText?: string;
}

let keys: readonly ConfigKey[] | undefined;

/** Every key of the config in the schema's order, sections before their keys. */
export function describeConfig(): readonly ConfigKey[] {
  if (keys === undefined) {
    const root = z.toJSONSchema(trainConfigSchema, { io: "input", unrepresentable: "any" }) as JsonSchema;
    const found = new Map<string, ConfigKey>();
    collect(root, "", undefined, found);
    keys = [...found.values()];
  }
  return keys;
}

function collect(
  section: JsonSchema,
  prefix: string,
  variant: string | undefined,
  found: Map<string, ConfigKey>,
): void {
  for (const [name, key] of Object.entries(section.properties ?? {})) {
    if (key.description === undefined) {
      // The absent discriminator of `model.path` is the one key that is no key.
      if (Object.keys(key).length === 0) continue;
      throw new InternalError(`the config key ${prefix}${name} has no description`);
    }
    const path = `${prefix}${name}`;
    const isSection = key.properties !== undefined || key.oneOf !== undefined;
    add(found, {
      path,
      type: typeText(key),
      default: isSection ? undefined : key.default,
      required: key.default === undefined && (section.required?.includes(name) ?? false),
      description: key.description,
      appliesTo: variant === undefined ? undefined : [variant],
    });
    if (key.properties !== undefined) collect(key, `${path}.`, variant, found);
    for (const member of key.oneOf ?? []) collect(member, `${path}.`, member.variant, found);
  }
}

/** Adds a key, joined with the same key of the section's other types where they say the same. */
function add(found: Map<string, ConfigKey>, key: ConfigKey): void {
  const isType = key.path.endsWith(".type");
  const identity = JSON.stringify([
    key.path,
    isType ? "" : key.type,
    key.default,
    key.required,
    key.description,
  ]);
  const same = found.get(identity);
  if (same === undefined) {
    found.set(identity, key);
    return;
  }
  found.set(identity, {
    ...same,
    type: isType ? `${same.type} | ${key.type}` : same.type,
    appliesTo: [...(same.appliesTo ?? []), ...(key.appliesTo ?? [])],
  });
}

function typeText(schema: JsonSchema): string {
  if (schema.typeText !== undefined) return schema.typeText;
  if (schema.const !== undefined) return String(schema.const);
  if (schema.enum !== undefined) return schema.enum.map(String).join(" | ");
  if (schema.properties !== undefined || schema.oneOf !== undefined) return "section";
  if (schema.prefixItems !== undefined) return `[${schema.prefixItems.map(typeText).join(", ")}]`;
  if (schema.items !== undefined) {
    return `list of ${typeText(schema.items)}${schema.minItems === undefined ? "" : `, at least ${schema.minItems}`}`;
  }
  if (schema.type === "integer" || schema.type === "number") return `${schema.type}${rangeText(schema)}`;
  return String(schema.type);
}

function rangeText(schema: JsonSchema): string {
  const bounds: string[] = [];
  // Zod bounds every integer by what a float64 holds exactly; nobody needs to read that.
  const isBound = (value: number | undefined) =>
    value !== undefined && Math.abs(value) !== Number.MAX_SAFE_INTEGER;
  if (isBound(schema.minimum)) bounds.push(`>= ${schema.minimum}`);
  if (isBound(schema.exclusiveMinimum)) bounds.push(`> ${schema.exclusiveMinimum}`);
  if (isBound(schema.maximum)) bounds.push(`<= ${schema.maximum}`);
  if (isBound(schema.exclusiveMaximum)) bounds.push(`< ${schema.exclusiveMaximum}`);
  return bounds.length === 0 ? "" : ` ${bounds.join(" and ")}`;
}
