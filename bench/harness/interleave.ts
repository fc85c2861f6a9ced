import { setTimeout as pause } from "node:timers/promises";
import { type Spread, spreadOf } from "../../src/cli/bench/measurement.ts";

/** One of those that are compared: Slipstream's own code, or a peer. */
export interface Contestant {
  readonly name: string;
  /** Runs so many times and gives the seconds of each. A peer that fails rejects. */
  readonly run: (repetitions: number) => Promise<readonly number[]> | readonly number[];
}

/** How long to measure. */
export interface Turns {
  /** Turns of each contestant. */
  readonly rounds: number;
  /** Seconds that a contestant may take for all its turns; each turn has at least one run. */
  readonly seconds: number;
  /** Called before every round and after the last one, for what is to be measured at the same time. */
  readonly between?: () => void;
}

/** What came of a comparison. */
export interface Comparison {
  /** Seconds of a run, of those that did not fail. */
  readonly spreads: ReadonlyMap<string, Spread>;
  /** Why the others are missing. */
  readonly failures: ReadonlyMap<string, string>;
}

/** Threads of the one before may spin for a moment; they should not take the cores of the next. */
const settleMilliseconds = 20;

/**
 * Lets contestants take turns (A B A B ...), so that whatever disturbs the machine disturbs all of them. The
 * first run of each warms up and is not counted. One that fails is left out, with its reason.
 */
export async function interleave(contestants: readonly Contestant[], turns: Turns): Promise<Comparison> {
  const { rounds, seconds: budget, between } = turns;
  const times = new Map<string, number[]>();
  const repetitions = new Map<string, number>();
  const failures = new Map<string, string>();
  const attempt = async ({ name, run }: Contestant, count: number): Promise<readonly number[]> => {
    try {
      await pause(settleMilliseconds);
      return await run(count);
    } catch (error) {
      failures.set(name, error instanceof Error ? error.message : String(error));
      return [];
    }
  };
  for (const contestant of contestants) {
    const [warm] = await attempt(contestant, 1);
    if (warm === undefined) continue;
    const perTurn = Math.floor(budget / rounds / Math.max(warm, 1e-6));
    repetitions.set(contestant.name, Math.min(Math.max(perTurn, 1), 200));
  }
  for (let round = 0; round < rounds; round++) {
    between?.();
    for (const contestant of contestants) {
      if (failures.has(contestant.name)) continue;
      const taken = await attempt(contestant, repetitions.get(contestant.name)!);
      times.set(contestant.name, [...(times.get(contestant.name) ?? []), ...taken]);
    }
  }
  between?.();
  const finished = [...times].filter(([name]) => !failures.has(name));
  return { spreads: new Map(finished.map(([name, taken]) => [name, spreadOf(taken)])), failures };
}

/** Seconds of each of `repetitions` calls. */
export function timeEach(body: () => void, repetitions: number): number[] {
  return Array.from({ length: repetitions }, () => {
    const started = performance.now();
    body();
    return (performance.now() - started) / 1000;
  });
}

/** Seconds of each of `repetitions` calls that take place off the event loop. */
export async function timeEachAsync(body: () => Promise<unknown>, repetitions: number): Promise<number[]> {
  const seconds: number[] = [];
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const started = performance.now();
    await body();
    seconds.push((performance.now() - started) / 1000);
  }
  return seconds;
}
