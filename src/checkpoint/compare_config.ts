import { ConfigError } from "../base/errors.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "./json.ts";

/** One key on which two configs differ. */
export interface ConfigDifference {
  readonly path: string;
  /** Undefined where it is not set. */
  readonly saved: JsonValue | undefined;
  readonly current: JsonValue | undefined;
}

/** Every key on which two configs differ, except ignored paths and what is below them. */
export function configDifferences(
  saved: JsonObject,
  current: JsonObject,
  ignoredPaths: Iterable<string> = [],
): ConfigDifference[] {
  return [...differences(saved, current, "", new Set(ignoredPaths))];
}

/**
 * Checks that a run may resume with `current` from a checkpoint that was saved under `saved`. A path in
 * `ignoredPaths` (`logging.every`, or `logging` for all below it) may differ.
 * @throws ConfigError listing each key that contradicts, with both values.
 */
export function compareConfig(
  saved: JsonObject,
  current: JsonObject,
  ignoredPaths: Iterable<string> = [],
): void {
  const contradictions = configDifferences(saved, current, ignoredPaths);
  if (contradictions.length === 0) return;
  const keys = contradictions.length === 1 ? "1 key" : `${contradictions.length} keys`;
  const lines = contradictions.map(
    ({ path, saved, current }) =>
      `    ${path}: ${showSetting(saved)} in the checkpoint, ${showSetting(current)} in the config`,
  );
  throw new ConfigError(
    "config_contradicts_checkpoint",
    [`the config contradicts the checkpoint that the run resumes from, in ${keys}`, ...lines].join("\n"),
    { hint: "set these keys as they were, or start a new run in another output_dir" },
  );
}

function* differences(
  saved: JsonValue | undefined,
  current: JsonValue | undefined,
  path: string,
  ignored: ReadonlySet<string>,
): Generator<ConfigDifference> {
  if (ignored.has(path) || saved === current) return;
  if (isJsonObject(saved) && isJsonObject(current)) {
    for (const key of new Set([...Object.keys(saved), ...Object.keys(current)])) {
      yield* differences(
        valueAt(saved, key),
        valueAt(current, key),
        path === "" ? key : `${path}.${key}`,
        ignored,
      );
    }
  } else if (Array.isArray(saved) && Array.isArray(current) && saved.length === current.length) {
    for (const [index, item] of saved.entries()) {
      yield* differences(item, current[index], `${path}[${index}]`, ignored);
    }
  } else yield { path, saved, current };
}

function valueAt(object: JsonObject, key: string): JsonValue | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** A setting in words, cut where it is long. */
export function showSetting(value: JsonValue | undefined): string {
  if (value === undefined) return "not set";
  const text = JSON.stringify(value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
