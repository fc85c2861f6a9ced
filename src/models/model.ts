import type { DType, TensorData } from "../base/dtype.ts";
import { ConfigError, DataError } from "../base/errors.ts";
import type { QuantizedParameter } from "../base/quantized_format.ts";
import { symbolic } from "../base/shape.ts";
import { leaf } from "../graph/build.ts";
import { gradients } from "../graph/gradient.ts";
import { buildGraph, type GraphOutput } from "../graph/graph.ts";
import { packedContext } from "../nn/attention.ts";
import type { ParameterTable } from "../nn/parameters.ts";
import type { Backend, Bindings, CompileOptions, Executable } from "../runtime/backend.ts";
import { linear, linearCrossEntropy } from "../tensor/functions.ts";
import { Session } from "../tensor/session.ts";
import { makeTensor, Tensor } from "../tensor/tensor.ts";
import { type PackedBatch, packSequences } from "./batch.ts";
import type { ConfigJson, LanguageModel, ModelFacts, ModelFamily } from "./family.ts";

/** The symbolic operands of a program over packed sequences. */
export interface PackedLeaves {
  readonly tokens: Tensor;
  readonly positions: Tensor;
  readonly offsets: Tensor;
  readonly targets: Tensor;
}

/** Leaves for up to `bound` packed tokens. Symbols: `tokens`, and `offsets` = sequences + 1. */
export function packedLeaves(bound: number): PackedLeaves {
  const tokens = symbolic("tokens", bound);
  const input = (name: string, size: typeof tokens): Tensor => new Tensor(leaf(name, "input", [size], "i32"));
  return {
    tokens: input("tokens", tokens),
    positions: input("positions", tokens),
    targets: input("targets", tokens),
    offsets: input("offsets", symbolic("offsets", bound + 1)),
  };
}

/** What a model is made of. */
export interface ModelParts {
  readonly family: ModelFamily;
  readonly config: ConfigJson;
  readonly language: LanguageModel;
  readonly parameters: ParameterTable;
  /** The values of every parameter, by name. */
  readonly weights: ReadonlyMap<string, TensorData>;
  /** The parameters whose values are packed quantized weights (u8). */
  readonly quantized?: ReadonlyMap<string, QuantizedParameter>;
  readonly backend: Backend;
  /** The dtype in which the model computes and keeps its weights. */
  readonly dtype: DType;
}

/** How programs of a model are compiled. */
export function compileOptionsOf({ quantized }: ModelParts): CompileOptions {
  return quantized === undefined ? {} : { quantized };
}

/** A model with its weights, ready to compute. */
export class Model {
  readonly parts: ModelParts;
  readonly #session: Session;
  readonly #programs = new Map<string, Executable>();

  constructor(parts: ModelParts) {
    this.parts = parts;
    this.#session = new Session(() => parts.backend);
  }

  get facts(): ModelFacts {
    return this.parts.language.facts;
  }

  /**
   * Logits f32 `[batch, time, vocabulary]` of sequences of equal length.
   * @throws DataError for ids that are not in the vocabulary, sequences of different lengths, or too long.
   */
  async forward(sequences: readonly (readonly number[])[]): Promise<Tensor> {
    const batch = packSequences(sequences, this.facts);
    const time = sequences[0]!.length;
    const odd = sequences.findIndex((sequence) => sequence.length !== time);
    if (odd >= 0) {
      throw new DataError("ragged_batch", "forward takes sequences of equal length", {
        where: `sequence ${odd} of the batch`,
        expected: `${time} tokens, as sequence 0 has`,
        received: `${sequences[odd]!.length} tokens`,
        hint: "call forward once a length; lossAndGradients takes any lengths",
      });
    }
    const { vocabularySize } = this.facts;
    const bound = boundFor(batch.tokens.length);
    const executable = this.#program(`logits ${bound}`, () => {
      const leaves = packedLeaves(bound);
      const logits = this.#logits(leaves);
      return [{ name: "logits", value: logits.value }];
    });
    const logits = this.parts.backend.allocate("f32", batch.tokens.length * vocabularySize);
    await executable.run({ ...this.#inputs(batch), logits }, symbolsOf(batch));
    return makeTensor(this.#session, logits, { shape: [sequences.length, time, vocabularySize] });
  }

  /** Mean next-token cross-entropy over all targets of all sequences, which may differ in length. */
  async loss(sequences: readonly (readonly number[])[]): Promise<{ loss: number; targets: number }> {
    const batch = packSequences(sequences, this.facts);
    requireTargets(batch);
    const bound = boundFor(batch.tokens.length);
    const executable = this.#program(`loss ${bound}`, () => [
      { name: "loss", value: this.#losses(packedLeaves(bound)).sum().value },
    ]);
    const loss = this.parts.backend.allocate("f32", 1);
    await executable.run({ ...this.#inputs(batch), loss }, symbolsOf(batch));
    return { loss: loss[0]! / batch.targetCount, targets: batch.targetCount };
  }

  /**
   * The mean next-token cross-entropy over all targets of all sequences, and its gradient with respect to
   * every parameter by Hugging Face name.
   */
  async lossAndGradients(
    sequences: readonly (readonly number[])[],
  ): Promise<{ loss: number; gradients: Map<string, Tensor> }> {
    const batch = packSequences(sequences, this.facts);
    requireTargets(batch);
    const bound = boundFor(batch.tokens.length);
    const { backend, parameters, quantized } = this.parts;
    if (quantized !== undefined && quantized.size > 0) {
      throw new ConfigError("quantized_gradients", "a model with quantized weights has no gradients", {
        expected: "weights in floats",
        received: `${quantized.size} quantized weights`,
        hint: "load the model without quantization; `slipstream convert` makes floats of a quantized file",
      });
    }
    const executable = this.#program(`gradients ${bound}`, () => {
      const weight = new Tensor(leaf("weight", "input", [], "f32"));
      const loss = this.#losses(packedLeaves(bound)).sum().multiply(weight);
      const table = [...parameters.values()];
      const results = gradients(
        loss.value,
        table.map((parameter) => parameter.tensor.value),
      );
      return [
        { name: "loss", value: loss.value },
        ...table.map(({ name }, index) => ({ name: `gradient ${name}`, value: results[index]! })),
      ];
    });
    const bindings: Record<string, TensorData> = { ...this.#inputs(batch) };
    const loss = backend.allocate("f32", 1);
    bindings.loss = loss;
    bindings.weight = Float32Array.of(1 / batch.targetCount);
    const found = new Map<string, Tensor>();
    for (const { name, shape, tensor } of parameters.values()) {
      const data = backend.allocate(tensor.dtype, this.parts.weights.get(name)!.length);
      bindings[`gradient ${name}`] = data;
      found.set(name, makeTensor(this.#session, data, { shape, dtype: tensor.dtype }));
    }
    await executable.run(bindings, symbolsOf(batch));
    return { loss: loss[0]!, gradients: found };
  }

  /** Must be called after weights were changed in place: packed copies are made anew. */
  weightsChanged(): void {
    for (const executable of this.#programs.values()) executable.invalidateParameters();
  }

  #hidden(leaves: PackedLeaves): Tensor {
    const { language, dtype } = this.parts;
    return language.hidden(leaves.tokens, leaves.positions, packedContext(leaves.offsets), dtype);
  }

  #logits(leaves: PackedLeaves): Tensor {
    return projectLogits(this.#hidden(leaves), this.parts.language.outputWeight);
  }

  #losses(leaves: PackedLeaves): Tensor {
    return linearCrossEntropy(this.#hidden(leaves), this.parts.language.outputWeight, leaves.targets);
  }

  #program(key: string, outputs: () => GraphOutput[]): Executable {
    let executable = this.#programs.get(key);
    if (executable === undefined) {
      executable = this.parts.backend.compile(buildGraph(key, outputs()), compileOptionsOf(this.parts));
      this.#programs.set(key, executable);
    }
    return executable;
  }

  #inputs(batch: PackedBatch): Bindings {
    const { tokens, positions, offsets, targets } = batch;
    return { ...Object.fromEntries(this.parts.weights), tokens, positions, offsets, targets };
  }
}

/** hidden `[rows, size]` times the output projection: f32 logits `[rows, vocabulary]`. */
export function projectLogits(hidden: Tensor, outputWeight: Tensor): Tensor {
  return linear(hidden, outputWeight, undefined, "f32");
}

function symbolsOf(batch: PackedBatch): { tokens: number; offsets: number } {
  return { tokens: batch.tokens.length, offsets: batch.offsets.length };
}

/** Programs are planned for a few sizes, so that a new length rarely compiles a new one. */
function boundFor(tokens: number): number {
  return Math.max(16, 2 ** Math.ceil(Math.log2(tokens)));
}

function requireTargets(batch: PackedBatch): void {
  if (batch.targetCount > 0) return;
  throw new DataError("no_targets", "a loss needs at least one sequence of two tokens", {
    received: "sequences of one token, which have no next token to predict",
  });
}
