/**
 * A strict reader of Prometheus' text format, written after its description
 * (prometheus.io/docs/instrumenting/exposition_formats) and nothing of the code under test: what it does not know
 * is an error.
 */

/** One line of numbers. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What stands under one `# TYPE` line. */
export interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram" | "summary" | "untyped";
  readonly samples: readonly Sample[];
}

const types: readonly string[] = ["counter", "gauge", "histogram", "summary", "untyped"];
const metricName = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const samplePattern = new RegExp(`^(${metricName})(?:\\{(.*)\\})? (\\S+)$`);
const labelPattern = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;
const numberPattern = /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?$/i;

/** As Go's ParseFloat reads it, which the format refers to: names of no number in any case. */
function readValue(text: string): number {
  if (/^nan$/i.test(text)) return Number.NaN;
  if (/^[+-]?inf$/i.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
  if (numberPattern.test(text)) return Number(text);
  throw new Error(`no value: ${text}`);
}

function readLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  labelPattern.lastIndex = 0;
  while (labelPattern.lastIndex < text.length) {
    const at = labelPattern.lastIndex;
    const match = labelPattern.exec(text);
    if (match === null) throw new Error(`no label: ${text.slice(at)}`);
    const [, name, value] = match;
    if (Object.hasOwn(labels, name!)) throw new Error(`the label ${name} stands twice: ${text}`);
    labels[name!] = value!.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
  }
  return labels;
}

function readSample(line: string): Sample {
  const match = samplePattern.exec(line);
  if (match === null) throw new Error(`no sample: ${line}`);
  return { name: match[1]!, labels: readLabels(match[2] ?? ""), value: readValue(match[3]!) };
}

/** A sample with its labels in order, so that two of one series are equal. */
function seriesOf({ name, labels }: Sample): string {
  return `${name}${JSON.stringify(Object.entries(labels).sort())}`;
}

function belongs(sample: Sample, { name, type }: Family): boolean {
  if (sample.name === name) return type !== "histogram";
  if (type !== "histogram" && type !== "summary") return false;
  return ["_bucket", "_sum", "_count"].some((ending) => sample.name === name + ending);
}

/** Each series of a histogram: bounds ascend to +Inf, counts never fall, and the last is the count. */
function checkHistogram({ name, samples }: Family): void {
  const buckets = new Map<string, [number, number][]>();
  for (const { name: sample, labels, value } of samples) {
    if (sample !== `${name}_bucket`) continue;
    const { le, ...rest } = labels;
    if (le === undefined) throw new Error(`a bucket of ${name} has no bound`);
    const series = JSON.stringify(Object.entries(rest).sort());
    buckets.set(series, [...(buckets.get(series) ?? []), [readValue(le), value]]);
  }
  const wholes = (ending: string): Sample[] => samples.filter((sample) => sample.name === name + ending);
  if (wholes("_sum").length !== buckets.size || wholes("_count").length !== buckets.size) {
    throw new Error(`${name} lacks sums or counts`);
  }
  for (const { labels, value } of wholes("_count")) {
    const series = buckets.get(JSON.stringify(Object.entries(labels).sort()));
    if (series === undefined) throw new Error(`a count of ${name} has no buckets`);
    const [bound, last] = series.at(-1)!;
    if (bound !== Infinity || last !== value)
      throw new Error(`${name} ends at ${bound} with ${last} of ${value}`);
    for (const [index, [upper, count]] of series.entries()) {
      const [lower, less] = series[index - 1] ?? [-Infinity, 0];
      if (upper <= lower || count < less) throw new Error(`buckets of ${name} are out of order`);
    }
  }
}

/**
 * The families of a text, by name.
 * @throws Error for whatever a Prometheus server could stumble over: a sample without its family, a family or
 * series that stands twice, counts that fall
 */
export function parseMetrics(text: string): Map<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const families = new Map<string, Family & { samples: Sample[] }>();
  const series = new Set<string>();
  let help: readonly [string, string] | undefined;
  let family: (Family & { samples: Sample[] }) | undefined;
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const comment = new RegExp(`^# (HELP|TYPE) (${metricName}) (.*)$`).exec(line);
    if (comment?.[1] === "HELP") {
      help = [comment[2]!, comment[3]!];
    } else if (comment?.[1] === "TYPE") {
      const [, , name, type] = comment as unknown as [string, string, string, Family["type"]];
      if (!types.includes(type)) throw new Error(`no type: ${line}`);
      if (help?.[0] !== name) throw new Error(`${name} has no help before its type`);
      if (families.has(name)) throw new Error(`${name} stands twice`);
      family = { name, type, help: help[1], samples: [] };
      families.set(name, family);
    } else {
      const sample = readSample(line);
      if (family === undefined || !belongs(sample, family)) throw new Error(`stands in no family: ${line}`);
      if (series.has(seriesOf(sample))) throw new Error(`stands twice: ${line}`);
      series.add(seriesOf(sample));
      family.samples.push(sample);
    }
  }
  for (const found of families.values()) if (found.type === "histogram") checkHistogram(found);
  return families;
}

/** The value of the one sample with this name and these labels, whatever others it has. @throws where there is none */
export function metricOf(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const wanted = Object.entries(labels);
  const found = [...families.values()]
    .flatMap(({ samples }) => samples)
    .filter((sample) => sample.name === name && wanted.every(([key, value]) => sample.labels[key] === value));
  if (found.length === 1) return found[0]!.value;
  throw new Error(`${found.length} samples of ${name} ${JSON.stringify(labels)}`);
}
