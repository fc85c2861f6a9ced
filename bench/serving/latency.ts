/** What one request does to others: a long prompt among streams, and a prefix that many share. */
import { setTimeout as pause } from "node:timers/promises";
import { bar, figure, spreadOf } from "../../src/cli/bench/measurement.ts";
import type { SuiteContext } from "../../src/cli/bench/suite.ts";
import { mixedLengths } from "../load/drive.ts";
import { percentiles } from "../load/summary.ts";
import { type MeasuredEngine, someTokens, write } from "./engines.ts";

const longPrompt = 4096;

/** A prompt of 4,096 tokens arrives while eight streams write. */
export async function measureLongPrompt(context: SuiteContext, measured: MeasuredEngine): Promise<void> {
  const { engine } = measured;
  const streams = 8;
  const answer = 384;
  const writers = Array.from({ length: streams }, async (_, stream) => {
    return await write(engine, someTokens(3000 + stream, 64), answer);
  });
  // The long prompt comes when about a fifth of the answers is written.
  await new Promise<void>((resolve) => {
    let steps = 0;
    engine.observe({
      step: () => {
        steps++;
        if (steps === Math.floor(answer / 5)) resolve();
      },
    });
  });
  const sent = performance.now() / 1000;
  const { times: first } = await write(engine, someTokens(4000, longPrompt), 1);
  const answers = await Promise.all(writers);
  const gaps = answers.flatMap(({ times }) => times.slice(1).map((time, index) => time - times[index]!));
  const { p99 } = percentiles(gaps)!;
  const median = spreadOf(gaps);
  const during = answers.flatMap(({ times }) =>
    times
      .slice(1)
      .flatMap((time, index) => (time > sent && times[index]! < first[0]! ? [time - times[index]!] : [])),
  );
  const title = `a prompt of ${longPrompt} tokens among ${streams} streams`;
  context.report({
    name: title,
    figures: [
      figure("gap between tokens of a stream", "seconds", median),
      figure("gap, p99", "seconds", p99),
      figure("longest gap", "seconds", Math.max(...gaps)),
      ...(during.length === 0 ? [] : [figure("gap while the prompt is read", "seconds", spreadOf(during))]),
      figure("the prompt's time to first token", "seconds", first[0]! - sent),
    ],
    bars: [bar(`${title}: p99 gap against the median`, "ratio", "at most", 2.5, p99 / median.median)],
    notes: [`gaps of all ${streams} streams over their whole answers of ${answer} tokens`],
  });
}

/** Sixteen requests at once share a prefix of 1,024 tokens. */
export async function measureSharedPrefix(context: SuiteContext, measured: MeasuredEngine): Promise<void> {
  const { engine } = measured;
  const prefix = (salt: number): number[] => someTokens(salt, 1024);
  const work = async (salt: number, requests: number): Promise<number> => {
    const steps = await measured.steps(async () => {
      await Promise.all(
        Array.from({ length: requests }, (_, index) =>
          write(engine, [...prefix(salt), ...someTokens(salt + 1 + index, 4)], 8),
        ),
      );
    });
    return steps.reduce((total, { promptTokens }) => total + promptTokens, 0);
  };
  const alone = await work(5000, 1);
  const shared = await work(6000, 16);
  const title = "16 requests with a shared prefix of 1,024 tokens";
  context.report({
    name: title,
    figures: [
      figure("prompt tokens computed for one request", "count", alone),
      figure("prompt tokens computed for all", "count", shared),
    ],
    bars: [bar(`${title}: prompt work against one request's`, "ratio", "at most", 1.1, shared / alone)],
    notes: ["each request has 4 tokens of its own after the prefix; they count"],
  });
}

/** Requests of many lengths, a few at a time, under both scheduling policies: the same tokens, other gaps. */
export async function comparePolicies(
  context: SuiteContext,
  open: (policy: "splitfuse" | "prefill-first") => Promise<MeasuredEngine>,
): Promise<void> {
  const requests = 24;
  const lengths = mixedLengths.slice(0, requests);
  const outcomes = new Map<string, { tokens: number[][]; gaps: number[]; seconds: number }>();
  for (const policy of ["splitfuse", "prefill-first"] as const) {
    const measured = await open(policy);
    try {
      const started = performance.now();
      const answers = await Promise.all(
        lengths.map(async ({ prompt, output }, index) => {
          // A tenth of a second apart, so that prompts arrive while others are answered.
          await pause(index * 100);
          return await write(
            measured.engine,
            someTokens(7000 + index, prompt).map((id) => id % 4000),
            output,
          );
        }),
      );
      outcomes.set(policy, {
        tokens: answers.map(({ tokens }) => tokens),
        gaps: answers.flatMap(({ times }) => times.slice(1).map((time, at) => time - times[at]!)),
        seconds: (performance.now() - started) / 1000,
      });
    } finally {
      await measured.close();
    }
  }
  const [fused, first] = [outcomes.get("splitfuse")!, outcomes.get("prefill-first")!];
  const odd = fused.tokens.findIndex((tokens, index) => tokens.join() !== first.tokens[index]!.join());
  if (odd >= 0) throw new Error(`request ${odd} has another answer under prefill-first than under SplitFuse`);
  const written = fused.tokens.flat().length;
  context.report({
    name: `${requests} requests of mixed lengths: SplitFuse and prefill-first`,
    figures: [...outcomes].flatMap(([policy, { gaps, seconds }]) => [
      figure(`${policy}: answer tokens`, "tokens/s", written / seconds),
      figure(`${policy}: gap between tokens, p50`, "seconds", percentiles(gaps)!.p50),
      figure(`${policy}: gap between tokens, p95`, "seconds", percentiles(gaps)!.p95),
      figure(`${policy}: gap between tokens, p99`, "seconds", percentiles(gaps)!.p99),
    ]),
    bars: [],
    notes: [
      `p95 gap of prefill-first against SplitFuse: ${(percentiles(first.gaps)!.p95 / percentiles(fused.gaps)!.p95).toFixed(2)}x`,
      "every answer is the same, token for token, under both",
    ],
  });
}
