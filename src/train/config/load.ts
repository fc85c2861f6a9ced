import { problemsOf } from "./issues.ts";
import { applyOverrides, type Override, parseOverride } from "./overrides.ts";
import { type ConfigProblem, InvalidConfigError, locateProblems, valueAt } from "./problems.ts";
import { optimizerSchema } from "./schema/optimizer.ts";
import { schedulerSchema } from "./schema/scheduler.ts";
import { type TrainConfig, trainConfigSchema } from "./schema/schema.ts";
import { contradictions } from "./semantics.ts";
import { type ConfigSource, formatPath, readSource } from "./source.ts";

/**
 * Reads a training config from a YAML or JSON file, with `--set` overrides (`path.to.key=value`) laid over
 * it, and fills in every default.
 * @throws ConfigError where the file cannot be read or an override is malformed.
 * @throws InvalidConfigError naming every wrong key, value and combination with its line and column.
 */
export function loadConfig(path: string, overrides: readonly string[] = []): TrainConfig {
  return checkConfig(readSource(path), overrides.map(parseOverride));
}

/** The valid config in a source with overrides; throws as `loadConfig` does. */
export function checkConfig(source: ConfigSource, overrides: readonly Override[] = []): TrainConfig {
  const data = withShortForms(withKnownTypeNames(applyOverrides(source.data, overrides)));
  const parsed = trainConfigSchema.safeParse(data);
  const problems: ConfigProblem[] = parsed.success ? [] : problemsOf(parsed.error.issues, data);
  problems.push(...contradictionsBeside(problems, data, parsed.data));
  if (problems.length > 0)
    throw new InvalidConfigError(source.file, locateProblems(problems, source, overrides));
  return trainConfigSchema.parse(data);
}

/**
 * Contradictions of a config, also of one with `problems`: those are cut out, and what is left is checked,
 * so that one run shows everything that is wrong. Nothing is said of keys that are already in question.
 */
function contradictionsBeside(
  problems: readonly ConfigProblem[],
  data: Readonly<Record<string, unknown>>,
  valid: TrainConfig | undefined,
): ConfigProblem[] {
  const config = valid ?? trainConfigSchema.safeParse(without(data, problems)).data;
  if (config === undefined) return [];
  const given = (path: string) => valueAt(data, path.split(".")) !== undefined;
  const questioned = problems.flatMap(({ path, meant }) => [
    formatPath(path),
    ...(meant === undefined ? [] : [meant]),
  ]);
  return contradictions(config, given).filter(
    ({ involved }) => !involved.some((path) => questioned.some((each) => inside(formatPath(path), each))),
  );
}

function without(data: Readonly<Record<string, unknown>>, problems: readonly ConfigProblem[]): unknown {
  const rest = structuredClone(data);
  for (const { path } of problems) {
    const section = valueAt(rest, path.slice(0, -1));
    if (section !== null && typeof section === "object") Reflect.deleteProperty(section, path.at(-1)!);
  }
  return rest;
}

/** Whether a key is in question itself, or within a section that is. */
function inside(path: string, questioned: string): boolean {
  return path === questioned || path.startsWith(`${questioned}.`);
}

/** Types of optimizers and schedules in the schema's upper and lower case, as DeepSpeed accepts any. */
function withKnownTypeNames(data: Record<string, unknown>): Record<string, unknown> {
  for (const [name, schema] of [
    ["optimizer", optimizerSchema],
    ["scheduler", schedulerSchema],
  ] as const) {
    const section = data[name];
    const type = valueAt(section, ["type"]);
    if (section === null || typeof section !== "object" || typeof type !== "string") continue;
    const known = schema.unwrap().options.map((option) => option.shape.type.value);
    const same = known.find((each) => each.toLowerCase() === type.toLowerCase());
    if (same !== undefined) data[name] = { ...section, type: same };
  }
  return data;
}

/** `parallel: auto` written out. */
function withShortForms(data: Record<string, unknown>): Record<string, unknown> {
  if (data.parallel === "auto") data.parallel = { auto: true };
  return data;
}
