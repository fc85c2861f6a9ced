import { existsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { ConfigError, RunError } from "../../base/errors.ts";
import { writeFileAtomically } from "../../checkpoint/index.ts";
import { withBackend } from "../backend.ts";
import type { BenchCommandOptions } from "../commands/bench.ts";
import { formatBars, formatCase } from "./format.ts";
import { busyWarning, describeMachine, loadAverage, type MachineFacts } from "./machine.ts";
import type { Bar, BenchCase } from "./measurement.ts";
import { benchSuites, type RunSuite, type SuiteContext } from "./suite.ts";

/** What one suite measured. */
interface SuiteResults {
  readonly suite: string;
  readonly cases: readonly BenchCase[];
  readonly notes: readonly string[];
  readonly loadAverage: { readonly start: number; readonly end: number };
  /** Why the suite ended early, if it did. */
  readonly failure?: string;
}

/** What `--json` writes. */
export interface BenchReport {
  readonly machine: MachineFacts;
  readonly started: string;
  readonly seconds: number;
  readonly loadAverage: { readonly start: number; readonly end: number };
  readonly suites: readonly SuiteResults[];
}

/** Finds a suite's function by its name. */
export type LoadSuite = (name: string) => Promise<RunSuite>;

/** Loads a suite from `bench/suites/`, which is part of the repository and not of the compiled package. */
async function loadSuite(name: string): Promise<RunSuite> {
  const file = new URL(`../../../bench/suites/${name}.ts`, import.meta.url);
  if (!existsSync(file)) {
    throw new RunError("no_benchmarks", "the benchmarks are not part of the installed package", {
      where: file.pathname,
      hint: "run `npx slipstream bench` in a clone of Slipstream's repository, after `npm ci`",
    });
  }
  const { run } = (await import(file.href)) as { readonly run: RunSuite };
  return run;
}

function checkJsonPath(file: string): void {
  const folder = dirname(resolve(file));
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true) return;
  throw new ConfigError("bad_json_file", "the measurements cannot be written there", {
    where: `--json ${file}`,
    expected: `an existing folder; there is none at ${folder}`,
  });
}

/** Runs a suite to its end or to its failure: what was measured before a failure is kept. */
async function runSuite(
  name: string,
  load: LoadSuite,
  parts: Pick<SuiteContext, "backend" | "machine" | "server">,
  print: (text: string) => void,
): Promise<{ results: SuiteResults; error?: unknown }> {
  const cases: BenchCase[] = [];
  const notes: string[] = [];
  const start = loadAverage();
  const results = () => ({ suite: name, cases, notes, loadAverage: { start, end: loadAverage() } });
  try {
    const run = await load(name);
    await run({
      ...parts,
      report: (result) => {
        cases.push(result);
        print(formatCase(result));
      },
      note: (line) => {
        notes.push(line);
        print(line);
      },
    });
    return { results: results() };
  } catch (error) {
    const failure = error instanceof Error ? error.message : String(error);
    return { results: { ...results(), failure }, error };
  }
}

function barsOf(suites: readonly SuiteResults[]): Bar[] {
  return suites.flatMap(({ cases }) => cases.flatMap(({ bars }) => bars));
}

/**
 * Runs one suite, or all, printing each case as it is measured and the bars at the end. A suite of `all` that
 * fails is told and the others still run; the failure is thrown when they are done.
 * @throws ConfigError where the JSON file could not be written in the end; what a suite throws.
 */
export async function runBench(
  options: BenchCommandOptions,
  load: LoadSuite = loadSuite,
  print: (text: string) => void = console.log,
): Promise<void> {
  if (options.json !== undefined) checkJsonPath(options.json);
  const machine = describeMachine();
  const began = performance.now();
  const started = new Date().toISOString();
  const start = loadAverage();
  const { processor, cores, isa, threads, node } = machine;
  print(`${processor}, ${cores} cores; ${isa} kernels on ${threads} threads; Node ${node}`);
  const warning = busyWarning(start, cores);
  if (warning !== undefined) print(warning);
  const names = options.suite === "all" ? benchSuites.map(({ name }) => name) : [options.suite];
  const suites: SuiteResults[] = [];
  const failures: unknown[] = [];
  const backendOptions = {
    backend: "native",
    ...(options.trace === undefined ? {} : { trace: options.trace }),
  } as const;
  const server = options.server === undefined ? {} : { server: options.server };
  await withBackend(backendOptions, async (backend) => {
    for (const name of names) {
      print(`\n${name}`);
      const { results, error } = await runSuite(name, load, { backend, machine, ...server }, print);
      suites.push(results);
      if (error === undefined) continue;
      failures.push(error);
      if (names.length > 1) print(`${name} ended early: ${results.failure}`);
    }
  });
  const end = loadAverage();
  print(`\n${formatBars(barsOf(suites))}`);
  print(`load average ${start.toFixed(2)} at the start, ${end.toFixed(2)} at the end`);
  const seconds = (performance.now() - began) / 1000;
  const report: BenchReport = { machine, started, seconds, loadAverage: { start, end }, suites };
  if (options.json !== undefined)
    await writeFileAtomically(options.json, `${JSON.stringify(report, null, 2)}\n`);
  if (failures.length > 0) throw failures[0];
}
