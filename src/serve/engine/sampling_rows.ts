import type { TensorData } from "../../base/dtype.ts";
import { type SymbolicDimension, symbolic } from "../../base/shape.ts";
import { leaf } from "../../graph/build.ts";
import { maximumLogprobs, samplingParameters, samplingSeeds } from "../../graph/ops.ts";
import type { Backend } from "../../runtime/backend.ts";
import { type SamplingBatch, sample } from "../../tensor/sampling.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { TokenConstraint } from "../structured/types.ts";
import type { RowLogprobs, SamplingState } from "./sampling_state.ts";

/** What the op `sample` needs at its bounds. */
export interface SamplingLimits {
  readonly rows: number;
  readonly vocabularySize: number;
  /** Entries of the history and of the biases of one row at the most. */
  readonly history: number;
  readonly biases: number;
}

/**
 * The operands and results of `sample`, a row for each sequence that gets a token in a step: allocated once,
 * written anew each step.
 */
export class SamplingRows {
  /** Operands and results by name. */
  readonly bindings: Record<string, TensorData> = {};
  readonly #words: number;
  readonly #leaves: SamplingBatch;
  #rows = 0;
  #history = 0;
  #biases = 0;
  #masks = 0;

  constructor(backend: Backend, limits: SamplingLimits, samples: SymbolicDimension) {
    const { rows, vocabularySize } = limits;
    this.#words = Math.ceil(vocabularySize / 32);
    const operand = (
      name: string,
      shape: readonly (number | SymbolicDimension)[],
      dtype: "i32" | "f32" = "i32",
    ): Tensor => {
      const elements = shape.reduce<number>(
        (product, size) => product * (typeof size === "number" ? size : size.bound),
        1,
      );
      this.bindings[name] = backend.allocate(dtype, elements);
      return new Tensor(leaf(name, "input", shape, dtype));
    };
    const offsets = symbolic("sample_offsets", rows + 1);
    const history = symbolic("history", rows * limits.history);
    const biases = symbolic("biases", rows * limits.biases);
    this.#leaves = {
      parameters: operand("parameters", [samples, samplingParameters.length], "f32"),
      seeds: operand("seeds", [samples, samplingSeeds.length]),
      historyOffsets: operand("history_offsets", [offsets]),
      historyIds: operand("history_ids", [history]),
      historyCounts: operand("history_counts", [history]),
      biasOffsets: operand("bias_offsets", [offsets]),
      biasIds: operand("bias_ids", [biases]),
      biasValues: operand("bias_values", [biases], "f32"),
      masks: operand("masks", [symbolic("masks", rows), this.#words]),
      maskRows: operand("mask_rows", [samples]),
    };
    this.bindings.sampled = backend.allocate("i32", rows);
    this.bindings.logprobs = backend.allocate("f32", rows);
    this.bindings.top_tokens = backend.allocate("i32", rows * maximumLogprobs);
    this.bindings.top_logprobs = backend.allocate("f32", rows * maximumLogprobs);
  }

  /** The results as outputs of a program, from logits f32 [samples, vocabulary]. */
  outputs(logits: Tensor) {
    const { tokens, logprobs, topTokens, topLogprobs } = sample(logits, this.#leaves);
    return [
      { name: "sampled", value: tokens.value },
      { name: "logprobs", value: logprobs.value },
      { name: "top_tokens", value: topTokens.value },
      { name: "top_logprobs", value: topLogprobs.value },
    ];
  }

  /** The values of the symbols for the rows that were added. */
  get symbols(): Readonly<Record<string, number>> {
    return {
      samples: this.#rows,
      sample_offsets: this.#rows + 1,
      history: this.#history,
      biases: this.#biases,
      masks: this.#masks,
    };
  }

  /** Begins a step: no rows. */
  clear(): void {
    this.#rows = this.#history = this.#biases = this.#masks = 0;
    this.#int("history_offsets")[0] = 0;
    this.#int("bias_offsets")[0] = 0;
  }

  /** Adds a row. @param constraint which tokens may come; undefined for all of them */
  add(state: SamplingState, constraint: TokenConstraint | undefined): void {
    const row = this.#rows++;
    this.#float("parameters").set(state.parameters, row * samplingParameters.length);
    const seeds = this.#int("seeds");
    seeds.set(state.seeds, row * samplingSeeds.length);
    seeds[row * samplingSeeds.length + positionColumn] = state.position;
    const { ids, counts } = state.history;
    this.#int("history_ids").set(ids, this.#history);
    this.#int("history_counts").set(counts, this.#history);
    this.#history += ids.length;
    this.#int("history_offsets")[row + 1] = this.#history;
    const biases = state.biases(constraint !== undefined);
    this.#int("bias_ids").set(biases.ids, this.#biases);
    this.#float("bias_values").set(biases.values, this.#biases);
    this.#biases += biases.ids.length;
    this.#int("bias_offsets")[row + 1] = this.#biases;
    this.#int("mask_rows")[row] = constraint === undefined ? -1 : this.#masks;
    if (constraint === undefined) return;
    const first = this.#masks++ * this.#words;
    constraint.fillMask(this.#int("masks").subarray(first, first + this.#words));
  }

  /** The token of a row of the last run, or a negative number where there is none (`samplingFailures`). */
  token(row: number): number {
    return this.#int("sampled")[row]!;
  }

  /** Log-probabilities of a row of the last run: of the chosen token, and of the `count` likeliest. */
  logprobs(row: number, count: number): RowLogprobs {
    const first = row * maximumLogprobs;
    const tokens = this.#int("top_tokens").slice(first, first + count);
    const logprobs = this.#float("top_logprobs").slice(first, first + count);
    const top: [number, number][] = [];
    tokens.forEach((token, index) => {
      if (token >= 0) top.push([token, logprobs[index]!]);
    });
    return { chosen: this.#float("logprobs")[row]!, top };
  }

  #int(name: string): Int32Array {
    return this.bindings[name] as Int32Array;
  }

  #float(name: string): Float32Array {
    return this.bindings[name] as Float32Array;
  }
}

const positionColumn = samplingSeeds.indexOf("position");
