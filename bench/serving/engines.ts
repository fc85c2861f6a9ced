/** Our engine in this process, as the benchmarks use it. */
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import type { LoadOptions } from "../../src/models/index.ts";
import { Engine } from "../../src/serve/engine/engine.ts";
import type { EngineSettings } from "../../src/serve/engine/options.ts";
import type { GenerateRequest, ServingEngine, StepReport } from "../../src/serve/engine/types.ts";
import { loadForServing } from "../../src/serve/load.ts";

/** A step, and when it ended (milliseconds of `performance.now()`). */
export interface TimedStep extends StepReport {
  readonly ended: number;
}

/** An engine that keeps a record of its steps. */
export interface MeasuredEngine {
  readonly engine: ServingEngine;
  /** Seconds from the file to ready. */
  readonly loadSeconds: number;
  /** The steps during `work`. */
  steps(work: () => Promise<void>): Promise<TimedStep[]>;
  close(): Promise<void>;
}

/** Loads a model file into an engine. */
export async function openEngine(
  { backend }: SuiteContext,
  file: string,
  settings: EngineSettings & LoadOptions = {},
): Promise<MeasuredEngine> {
  const { precision = "bf16", quantization, ...rest } = settings;
  const started = performance.now();
  const parts = await loadForServing(backend, file, {
    precision,
    ...(quantization === undefined ? {} : { quantization }),
  });
  const engine = await Engine.create({ ...parts, seed: 1, ...rest });
  const loadSeconds = (performance.now() - started) / 1000;
  let record: TimedStep[] | undefined;
  engine.observe({ step: (report) => record?.push({ ...report, ended: performance.now() }) });
  return {
    engine,
    loadSeconds,
    steps: async (work) => {
      const steps: TimedStep[] = [];
      record = steps;
      await work();
      record = undefined;
      return steps;
    },
    close: async () => await engine.dispose(),
  };
}

/** Ids that differ from stream to stream and from position to position: what the peer is given, too. */
export function someTokens(stream: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => 300 + ((stream * 7919 + index * 104_729) % 30_000));
}

/** Runs a request to its end, greedily, whatever it writes; gives its tokens and when each piece came. */
export async function write(
  engine: ServingEngine,
  prompt: readonly number[],
  maxTokens: number,
  extra: Partial<GenerateRequest> = {},
): Promise<{ tokens: number[]; times: number[] }> {
  const tokens: number[] = [];
  const times: number[] = [];
  for await (const piece of engine.generate({
    prompt,
    maxTokens,
    temperature: 0,
    ignoreEos: true,
    ...extra,
  })) {
    if (piece.error !== undefined) throw new Error(piece.error);
    if (piece.tokens.length > 0) times.push(performance.now() / 1000);
    tokens.push(...piece.tokens);
  }
  if (tokens.length !== maxTokens) throw new Error(`${tokens.length} tokens came instead of ${maxTokens}`);
  return { tokens, times };
}

/** Seconds of each step in which `streams` answers got a token each and nothing else was done. */
export async function decodeSteps(
  measured: MeasuredEngine,
  streams: number,
  prompt: number,
  count: number,
): Promise<number[]> {
  const steps = await measured.steps(async () => {
    await Promise.all(
      Array.from({ length: streams }, (_, stream) =>
        write(measured.engine, someTokens(stream, prompt), count + streams),
      ),
    );
  });
  const seconds: number[] = [];
  for (const [index, step] of steps.entries()) {
    const before = steps[index - 1];
    const plain = (one: TimedStep | undefined): boolean =>
      one !== undefined && one.sequences === streams && one.tokens === streams;
    // From the end of the step before: what is done between steps counts too.
    if (plain(step) && plain(before)) seconds.push((step.ended - before!.ended) / 1000);
  }
  if (seconds.length === 0) throw new Error(`no step served all ${streams} streams`);
  return seconds;
}
