import { existsSync, readFileSync } from "node:fs";
import { FileFormatError } from "../../base/errors.ts";
import { openForAppending, replaceFile } from "./files.ts";
import type { MetricsSink, StepMetrics } from "./sink.ts";

/**
 * `metrics.jsonl`: one JSON object a line and step, in the file as soon as it is recorded, so that other
 * programs can follow it. Numbers that are not finite become `null`.
 *
 * A new run (`resumeAfter` left out) starts the file anew. A run that resumes after step N keeps the lines
 * up to N and cuts off the later ones, which it is about to repeat, with any line that a crash left torn.
 * @throws FileFormatError where the file to resume holds a line that is no metrics.
 */
export function createMetricsLog(path: string, resumeAfter?: number): MetricsSink {
  const kept = resumeAfter === undefined ? [] : readMetrics(path).filter(({ step }) => step <= resumeAfter);
  replaceFile(path, kept.map(lineOf).join(""));
  const file = openForAppending(path, "append");
  return { ...file, record: (metrics) => file.append(lineOf(metrics)) };
}

/**
 * The steps in a `metrics.jsonl`; none where there is no file. A last line without an end is what a crash
 * leaves, and is passed over. Losses that were not finite come back as NaN.
 * @throws FileFormatError naming the line that is no metrics.
 */
export function readMetrics(path: string): StepMetrics[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n");
  return lines
    .slice(0, -1)
    .flatMap((line, index) => (line.trim() === "" ? [] : [parseLine(path, index + 1, line)]));
}

function lineOf(metrics: StepMetrics): string {
  return `${JSON.stringify(metrics)}\n`;
}

function parseLine(path: string, number: number, line: string): StepMetrics {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line, (_key, value: unknown) => (value === null ? Number.NaN : value));
  } catch {
    parsed = undefined;
  }
  if (
    parsed === undefined ||
    typeof parsed !== "object" ||
    !Number.isInteger(Reflect.get(parsed as object, "step"))
  ) {
    throw new FileFormatError("bad_metrics", "a line of the metrics cannot be read", {
      where: `${path}:${number}`,
      expected: 'a JSON object with "step"',
      received: line.length > 80 ? `${line.slice(0, 77)}...` : line,
      hint: "move the file away to start a new one",
    });
  }
  return parsed as StepMetrics;
}
