/** What a load says about a server: throughput, latencies, and how many requests were served well. */
import type { Timeline } from "./stream_client.ts";

/** What counts as served well. Seconds. */
export interface LatencyTarget {
  /** From sending to the first text. */
  readonly firstToken: number;
  /** Mean between two tokens of the answer. */
  readonly perToken: number;
}

/** Of many numbers. */
export interface Percentiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** The outcome of a load. Seconds; rates a second. */
export interface LoadSummary {
  readonly requests: number;
  readonly failed: number;
  /** Why, the most frequent reason first. */
  readonly failures: readonly string[];
  readonly seconds: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly outputTokensPerSecond: number;
  readonly requestsPerSecond: number;
  readonly firstToken: Percentiles | undefined;
  /** Of requests: mean time between tokens. */
  readonly perToken: Percentiles | undefined;
  /** Of single gaps between pieces, over all requests. */
  readonly gap: Percentiles | undefined;
  readonly endToEnd: Percentiles | undefined;
  /** Requests that met the target, of all that were sent. */
  readonly good: number;
  readonly goodput: number;
}

/** The value below which a fraction of the values lie (nearest rank); undefined of none. */
export function percentiles(values: readonly number[]): Percentiles | undefined {
  if (values.length === 0) return undefined;
  const sorted = values.toSorted((a, b) => a - b);
  const at = (fraction: number): number => sorted[Math.max(0, Math.ceil(fraction * sorted.length) - 1)]!;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

/** Seconds from sending to the first piece; undefined where none came. */
export function firstTokenOf({ sent, pieces }: Timeline): number | undefined {
  return pieces[0] === undefined ? undefined : pieces[0] - sent;
}

/** Mean seconds between tokens after the first; undefined for answers of one token. */
export function perTokenOf({ pieces, tokens }: Timeline): number | undefined {
  if (tokens < 2 || pieces.length < 2) return undefined;
  return (pieces.at(-1)! - pieces[0]!) / (tokens - 1);
}

/** Seconds between the pieces of an answer. */
export function gapsOf({ pieces }: Timeline): number[] {
  return pieces.slice(1).map((time, index) => time - pieces[index]!);
}

function isGood(timeline: Timeline, target: LatencyTarget): boolean {
  const first = firstTokenOf(timeline);
  if (timeline.failure !== undefined || first === undefined) return false;
  return first <= target.firstToken && (perTokenOf(timeline) ?? 0) <= target.perToken;
}

const defined = (values: readonly (number | undefined)[]): number[] =>
  values.filter((value) => value !== undefined);

/** Sums up what became of a load. */
export function summarize(timelines: readonly Timeline[], target: LatencyTarget): LoadSummary {
  const served = timelines.filter(({ failure }) => failure === undefined);
  const begin = Math.min(...timelines.map(({ sent }) => sent));
  const seconds = Math.max(...timelines.map(({ ended }) => ended)) - begin;
  const outputTokens = served.reduce((total, { tokens }) => total + tokens, 0);
  const good = timelines.filter((timeline) => isGood(timeline, target)).length;
  const reasons = new Map<string, number>();
  for (const { failure } of timelines)
    if (failure !== undefined) reasons.set(failure, (reasons.get(failure) ?? 0) + 1);
  return {
    requests: timelines.length,
    failed: timelines.length - served.length,
    failures: [...reasons].sort((a, b) => b[1] - a[1]).map(([reason, count]) => `${count} x ${reason}`),
    seconds,
    promptTokens: served.reduce((total, { promptTokens }) => total + promptTokens, 0),
    outputTokens,
    outputTokensPerSecond: outputTokens / seconds,
    requestsPerSecond: served.length / seconds,
    firstToken: percentiles(defined(served.map(firstTokenOf))),
    perToken: percentiles(defined(served.map(perTokenOf))),
    gap: percentiles(served.flatMap(gapsOf)),
    endToEnd: percentiles(served.map(({ sent, ended }) => ended - sent)),
    good,
    goodput: good / seconds,
  };
}
