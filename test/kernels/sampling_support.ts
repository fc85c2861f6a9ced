/** Rows for the sampling kernel, and what they give natively and in the float64 reference. */
import { maximumLogprobs, samplingParameters } from "../../src/graph/ops.ts";
import { referenceRules } from "../../src/graph/rules/reference.ts";
import {
  adjustLogits,
  distributionOf,
  drawFrom,
  type SamplingSettings,
  uniformOf,
} from "../../src/graph/rules/references/sampling.ts";
import type { IsaName } from "../../src/runtime/native/addon.ts";
import { runKernel, type TestTensor, tensorOf, valuesOf, zeros } from "./support.ts";

/** One row: its logits, what differs from neutral settings, and its lists. */
export interface SamplingRow extends Partial<SamplingSettings> {
  readonly logits: ArrayLike<number>;
  /** Seed low, seed high, position, answer. */
  readonly seeds?: readonly number[];
  readonly history?: readonly (readonly [id: number, count: number])[];
  readonly bias?: readonly (readonly [id: number, value: number])[];
  /** Ids that a mask allows; no mask where absent. */
  readonly allowed?: readonly number[];
}

/** What the kernel writes for one row. */
export interface SampledRow {
  readonly token: number;
  readonly logprob: number;
  readonly topTokens: readonly number[];
  readonly topLogprobs: readonly number[];
}

const neutral: SamplingSettings = {
  temperature: 1,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  logprobs: -1,
};

const settingsOf = (row: SamplingRow): SamplingSettings =>
  Object.fromEntries(
    samplingParameters.map((name) => [name, Math.fround(row[name] ?? neutral[name])]),
  ) as Record<keyof SamplingSettings, number>;
const seedsOf = (row: SamplingRow): readonly number[] => row.seeds ?? [0, 0, 0, 0];

function listTensors(
  lists: readonly (readonly (readonly [number, number])[])[],
  dtype: "i32" | "f32",
): TestTensor[] {
  const offsets = [0];
  for (const list of lists) offsets.push(offsets.at(-1)! + list.length);
  const flat = lists.flat();
  return [
    tensorOf("i32", [offsets.length], offsets),
    tensorOf(
      "i32",
      [flat.length],
      flat.map(([id]) => id),
    ),
    tensorOf(
      dtype,
      [flat.length],
      flat.map(([, value]) => value),
    ),
  ];
}

/** A mask's words with the bits of `allowed`. */
function wordsOf(allowed: readonly number[], vocabulary: number): number[] {
  const words = new Array<number>(Math.ceil(vocabulary / 32)).fill(0);
  for (const id of allowed) words[id >>> 5]! |= 1 << (id & 31);
  return words;
}

/** The kernel's operands for rows over one vocabulary. */
export function operandsOf(rows: readonly SamplingRow[]): TestTensor[] {
  const count = rows.length;
  const vocabulary = rows[0]!.logits.length;
  const logits = new Float64Array(count * vocabulary);
  rows.forEach((row, index) => {
    logits.set(row.logits, index * vocabulary);
  });
  const masks = rows.flatMap((row) => (row.allowed === undefined ? [] : [wordsOf(row.allowed, vocabulary)]));
  let next = 0;
  const maskRows = rows.map((row) => (row.allowed === undefined ? -1 : next++));
  return [
    tensorOf("f32", [count, vocabulary], logits),
    tensorOf(
      "f32",
      [count, samplingParameters.length],
      rows.flatMap((row) => Object.values(settingsOf(row))),
    ),
    tensorOf("i32", [count, 4], rows.flatMap(seedsOf)),
    ...listTensors(
      rows.map((row) => row.history ?? []),
      "i32",
    ),
    ...listTensors(
      rows.map((row) => row.bias ?? []),
      "f32",
    ),
    tensorOf("i32", [masks.length, Math.ceil(vocabulary / 32)], masks.flat()),
    tensorOf("i32", [count], maskRows),
  ];
}

function outputsOf(rows: number): TestTensor[] {
  return [
    zeros("i32", [rows]),
    zeros("f32", [rows]),
    zeros("i32", [rows, maximumLogprobs]),
    zeros("f32", [rows, maximumLogprobs]),
  ];
}

function rowsOf(outputs: readonly ArrayLike<number>[]): SampledRow[] {
  const [tokens, logprobs, topTokens, topLogprobs] = outputs.map((values) => Array.from(values)) as [
    number[],
    number[],
    number[],
    number[],
  ];
  return tokens.map((token, row) => {
    const [start, end] = [row * maximumLogprobs, (row + 1) * maximumLogprobs];
    return {
      token,
      logprob: logprobs[row]!,
      topTokens: topTokens.slice(start, end),
      topLogprobs: topLogprobs.slice(start, end),
    };
  });
}

/** Runs the kernel; `operands` instead of those of the rows, to spoil some. */
export function sampleNatively(
  isa: IsaName,
  rows: readonly SamplingRow[],
  threads = 2,
  operands = operandsOf(rows),
): SampledRow[] {
  const outputs = outputsOf(rows.length);
  runKernel("sample", isa, operands, outputs, [], threads);
  return rowsOf(outputs.map(valuesOf));
}

/** The same in float64, everything sorted. */
export function sampleByReference(rows: readonly SamplingRow[]): SampledRow[] {
  const operands = operandsOf(rows).map((operand) => ({ shape: operand.shape, values: valuesOf(operand) }));
  const shapes = outputsOf(rows.length).map(({ shape }) => shape);
  return rowsOf(referenceRules.sample(operands, {}, shapes));
}

/**
 * The tokens that float32 may choose for a row: what the reference chooses when the number drawn, the share of
 * `top_p` and the ratio of `min_p` move by `slack` either way. Where a cumulative probability lies within
 * rounding of one of them, both of its neighbours are right.
 */
export function acceptableTokens(row: SamplingRow, slack: number): Set<number> {
  const settings = settingsOf(row);
  const vocabulary = row.logits.length;
  const mask = row.allowed === undefined ? undefined : Float64Array.from(wordsOf(row.allowed, vocabulary));
  const logits = adjustLogits(
    Float64Array.from(row.logits),
    settings,
    mask,
    row.bias ?? [],
    row.history ?? [],
  );
  const uniform = uniformOf(seedsOf(row));
  const tokens = new Set<number>();
  const moves = [-slack, 0, slack];
  for (const share of settings.top_p < 1 ? moves : [0]) {
    for (const ratio of settings.min_p > 0 ? moves : [0]) {
      const distribution = distributionOf(logits, {
        ...settings,
        top_p: settings.top_p + share,
        min_p: settings.min_p * (1 + ratio),
      });
      for (const move of moves) tokens.add(drawFrom(distribution, Math.max(0, uniform + move)));
    }
  }
  return tokens;
}
