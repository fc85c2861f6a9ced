import { parseDocument } from "yaml";
import { ConfigError } from "../../base/errors.ts";
import type { ConfigPath } from "./source.ts";

/** One `--set path.to.key=value`. */
export interface Override {
  /** As it was written. */
  readonly text: string;
  readonly path: ConfigPath;
  /** The value, read as YAML; null removes the key. */
  readonly value: unknown;
}

/**
 * Reads `path.to.key=value`; a list's elements are `prompts[0]` or `prompts.0`.
 * @throws ConfigError where there is no path, no `=`, or the value is not YAML.
 */
export function parseOverride(text: string): Override {
  const equals = text.indexOf("=");
  const parts = text
    .slice(0, Math.max(0, equals))
    .replaceAll(/\[(\d+)\]/g, ".$1")
    .split(".");
  if (equals < 1 || parts.some((part) => part.trim() === "" || part === "__proto__")) {
    throw new ConfigError("bad_override", "an override has no key or no value", {
      expected: "--set path.to.key=value",
      received: `--set ${text}`,
    });
  }
  const document = parseDocument(text.slice(equals + 1), { prettyErrors: false });
  const error = document.errors[0];
  if (error !== undefined) {
    throw new ConfigError("bad_override", "the value of an override is not YAML", {
      where: `--set ${text}`,
      received: error.message,
      hint: "put text with special characters in quotes",
    });
  }
  const path = parts.map((part) => (/^\d+$/.test(part) ? Number(part) : part.trim()));
  return { text, path, value: document.toJS() as unknown };
}

/**
 * The config's data with overrides set in their order; sections that are not there are made.
 * @throws ConfigError where an override leads through a value that has no keys.
 */
export function applyOverrides(
  data: Readonly<Record<string, unknown>>,
  overrides: readonly Override[],
): Record<string, unknown> {
  const result = structuredClone(data) as Record<string, unknown>;
  for (const override of overrides) apply(result, override);
  return result;
}

function apply(root: Record<string, unknown>, override: Override): void {
  let section: object = root;
  const parents = override.path.slice(0, -1);
  for (const part of parents) {
    const inside: unknown = Object.hasOwn(section, part) ? Reflect.get(section, part) : undefined;
    if (inside === undefined || inside === null) {
      const made = {};
      Reflect.set(section, part, made);
      section = made;
    } else if (typeof inside === "object") {
      section = inside;
    } else {
      throw new ConfigError("bad_override", `${String(part)} is a value, so nothing in it can be set`, {
        where: `--set ${override.text}`,
        received: JSON.stringify(inside),
      });
    }
  }
  const last = override.path.at(-1)!;
  if (Array.isArray(section) && (typeof last !== "number" || last > section.length)) {
    throw new ConfigError("bad_override", `${String(last)} is no place in a list of ${section.length}`, {
      where: `--set ${override.text}`,
      hint: "set the whole list: --set key='[first, second]'",
    });
  }
  if (override.value === null) Reflect.deleteProperty(section, last);
  else Reflect.set(section, last, override.value);
}
