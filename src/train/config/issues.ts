import type { z } from "zod";
import { nearest } from "../../base/suggest.ts";
import { type ConfigKey, describeConfig } from "./describe.ts";
import { type ConfigProblem, describeValue, valueAt } from "./problems.ts";
import { type ConfigPath, formatPath } from "./source.ts";
import { gpt2Names, otherNames, unavailableKeys, unavailableValues } from "./unavailable.ts";

/** What the schema found wrong with `data`, in words that name keys, values and what was meant. */
export function problemsOf(issues: readonly z.core.$ZodIssue[], data: unknown): ConfigProblem[] {
  return issues.flatMap((issue) => {
    const path = issue.path.filter((part) => typeof part !== "symbol");
    if (issue.code === "unrecognized_keys") return issue.keys.map((key) => unknownKey([...path, key], data));
    return [wrongValue(issue, path, data)];
  });
}

/** Keys that apply to the config as it is: those of its model's family, its optimizer and its schedule. */
function applicableKeys(data: unknown): ConfigKey[] {
  const typeOf = (section: string, otherwise: string) => {
    const type = valueAt(data, [section, "type"]);
    return typeof type === "string" ? type : otherwise;
  };
  const variants: Readonly<Record<string, string>> = {
    model: typeOf("model", "path"),
    optimizer: typeOf("optimizer", "AdamW"),
    scheduler: typeOf("scheduler", "Constant"),
  };
  return describeConfig().filter((key) => {
    const variant = variants[key.path.split(".")[0]!];
    return key.appliesTo === undefined || variant === undefined || key.appliesTo.includes(variant);
  });
}

function unknownKey(path: ConfigPath, data: unknown): ConfigProblem {
  const name = formatPath(path);
  if (unavailableKeys.has(name)) {
    return {
      path,
      summary: `${name} is not available in this version`,
      hint: "remove it; see CHANGELOG.md for what this version has",
    };
  }
  const key = String(path.at(-1));
  const section = path.slice(0, -1);
  const prefix = section.length === 0 ? "" : `${formatPath(section)}.`;
  const keys = applicableKeys(data);
  const siblings = keys
    .filter((each) => each.path.startsWith(prefix) && !each.path.slice(prefix.length).includes("."))
    .map((each) => each.path.slice(prefix.length));
  const meant = otherNames[name] ?? nearestIn(key, prefix, siblings) ?? keyElsewhere(name, key, keys);
  const hint =
    familyHint(name, key, data) ?? (meant === undefined ? variantHint(name) : `did you mean ${meant}?`);
  const known = siblings.length === 0 ? "no keys here" : `one of ${siblings.join(", ")}`;
  return {
    path,
    summary: `unknown key ${name}`,
    expected: hint === undefined ? known : undefined,
    hint,
    meant,
  };
}

/** What to do about a key of another family of models than the config's. */
function familyHint(name: string, key: string, data: unknown): string | undefined {
  if (!name.startsWith("model.")) return undefined;
  const family = valueAt(data, ["model", "type"]);
  if (name === "model.path") return "remove it to train a new model, or model.type to fine-tune this folder";
  if (family === "gpt2" && gpt2Names[key] !== undefined) return `gpt2 calls it ${gpt2Names[key]}`;
  if (family !== undefined || !describeConfig().some((each) => each.path === name)) return undefined;
  return valueAt(data, ["model", "path"]) === undefined
    ? "say which family it is with model.type"
    : "remove it: the shapes of model.path come from its config.json";
}

/** Says which types of model, optimizer or schedule have a key, where the config's own does not. */
function variantHint(name: string): string | undefined {
  const types = describeConfig().flatMap((each) => (each.path === name ? (each.appliesTo ?? []) : []));
  return types.length === 0
    ? undefined
    : `only ${types.join(", ")} ${types.length === 1 ? "has" : "have"} it`;
}

/** The path of a key of the same name in another section, unless other types of this section have it. */
function keyElsewhere(name: string, key: string, keys: readonly ConfigKey[]): string | undefined {
  if (variantHint(name) !== undefined) return undefined;
  return keys.find((each) => each.path.split(".").at(-1) === key)?.path;
}

function nearestIn(key: string, prefix: string, siblings: readonly string[]): string | undefined {
  const meant = nearest(key, siblings);
  return meant === undefined ? undefined : `${prefix}${meant}`;
}

function wrongValue(issue: z.core.$ZodIssue, path: ConfigPath, data: unknown): ConfigProblem {
  const name = formatPath(path);
  const value = valueAt(data, path);
  const key =
    applicableKeys(data).find((each) => each.path === name) ??
    describeConfig().find((each) => each.path === name);
  const expected = expectedBy(issue, key, name);
  if (value === undefined) return { path, summary: `${name} is missing`, expected, hint: missingHint(name) };
  if (isUnavailable(name, value)) {
    return {
      path,
      summary: `${name}: ${String(value)} is not available in this version`,
      expected,
      received: describeValue(value),
    };
  }
  return {
    path,
    summary: `${name} has a value that cannot be used`,
    expected,
    received: describeValue(value),
    hint: valueHint(value, expected),
  };
}

function isUnavailable(name: string, value: unknown): boolean {
  const lower = (each: unknown) => (typeof each === "string" ? each.toLowerCase() : each);
  return unavailableValues[name]?.some((each) => lower(each) === lower(value)) ?? false;
}

function expectedBy(issue: z.core.$ZodIssue, key: ConfigKey | undefined, name: string): string {
  if (key !== undefined) {
    if (!name.endsWith(".type")) return key.type;
    // The families of one section are spread over its variants.
    const types = describeConfig().filter((each) => each.path === name);
    return types.map((each) => each.type).join(" | ");
  }
  switch (issue.code) {
    case "invalid_type":
      return `a ${issue.expected}`;
    case "too_small":
      return `${issue.inclusive === false ? "more than" : "at least"} ${String(issue.minimum)}`;
    case "too_big":
      return `${issue.inclusive === false ? "less than" : "at most"} ${String(issue.maximum)}`;
    default:
      return issue.message;
  }
}

function missingHint(name: string): string | undefined {
  if (name === "model.path")
    return "set model.path to fine-tune a model, or model.type and its shapes for a new one";
  return undefined;
}

function valueHint(value: unknown, expected: string): string | undefined {
  if (value === null) return "give it a value, or remove the key for its default";
  if (typeof value !== "string") return undefined;
  if (value === "auto" && !expected.includes("auto")) {
    return '"auto" is filled in by other trainers; give a value, or remove the key for its default';
  }
  if (/^(integer|number)/.test(expected) && value.trim() !== "" && Number.isFinite(Number(value))) {
    return `write ${value.trim()} without quotes`;
  }
  if (expected === "boolean" && /^(yes|no|on|off|true|false)$/i.test(value)) return "write true or false";
  const meant = expected.includes(" | ") ? nearest(value, expected.split(" | ")) : undefined;
  return meant === undefined ? undefined : `did you mean ${meant}?`;
}
