import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ConfigError } from "../../base/errors.ts";
import { bar, figure } from "./measurement.ts";
import { type BenchReport, type LoadSuite, runBench } from "./run.ts";
import { benchSuites } from "./suite.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "bench-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Suites that report one case each; one of them fails after that. */
function suites(failing?: string): LoadSuite {
  return async (name) => async (context) => {
    context.note(`peer absent: none of ${name}`);
    const held = bar(`${name}: speed`, "ratio", "at least", 2, 3);
    context.report({
      name: `${name} case`,
      figures: [figure("time", "seconds", 0.5)],
      bars: [held],
      notes: [],
    });
    if (name === failing) throw new Error(`${name} broke`);
  };
}

async function run(
  suite: string,
  load: LoadSuite,
): Promise<{ lines: string[]; json: string; error: unknown }> {
  const lines: string[] = [];
  const json = join(folder, "out.json");
  let error: unknown;
  try {
    await runBench({ suite, json }, load, (text) => lines.push(...text.split("\n")));
  } catch (fault) {
    error = fault;
  }
  return { lines, json, error };
}

function readReport(file: string): BenchReport {
  return JSON.parse(readFileSync(file, "utf8")) as BenchReport;
}

test("one suite: prints its cases and bars, and writes them with the machine", async () => {
  const { lines, json, error } = await run("matmul", suites());
  expect(error).toBeUndefined();
  expect(lines).toContain("matmul case");
  expect(lines).toContain("1 of 1 bars met");
  const report = readReport(json);
  expect(report.suites.map(({ suite }) => suite)).toEqual(["matmul"]);
  expect(report.suites[0]!.cases[0]!.figures).toEqual([{ name: "time", unit: "seconds", value: 0.5 }]);
  expect(report.suites[0]!.notes).toEqual(["peer absent: none of matmul"]);
  expect(report.machine.node).toBe(process.versions.node);
  expect(report.machine.threads).toBeGreaterThan(0);
  expect(report.loadAverage.start).toBeGreaterThanOrEqual(0);
});

test("all: a suite that fails keeps what it measured and stops no other", async () => {
  const { lines, json, error } = await run("all", suites("attention"));
  expect(String(error)).toContain("attention broke");
  expect(lines).toContain("attention ended early: attention broke");
  expect(lines).toContain(`${benchSuites.length} of ${benchSuites.length} bars met`);
  const report = readReport(json);
  expect(report.suites.map(({ suite }) => suite)).toEqual(benchSuites.map(({ name }) => name));
  const failed = report.suites.find(({ suite }) => suite === "attention")!;
  expect(failed.failure).toBe("attention broke");
  expect(failed.cases).toHaveLength(1);
});

test("a file that could not be written is refused before anything is measured", async () => {
  const json = join(folder, "missing", "out.json");
  let ran = false;
  const load: LoadSuite = async () => {
    ran = true;
    return async () => {};
  };
  await expect(runBench({ suite: "matmul", json }, load, () => {})).rejects.toThrow(ConfigError);
  await expect(runBench({ suite: "matmul", json }, load, () => {})).rejects.toThrow(`--json ${json}`);
  expect(ran).toBe(false);
  expect(existsSync(join(folder, "missing"))).toBe(false);
});
