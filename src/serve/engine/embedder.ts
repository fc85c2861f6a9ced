import type { TensorData } from "../../base/dtype.ts";
import { symbolic } from "../../base/shape.ts";
import { leaf } from "../../graph/build.ts";
import { apply, buildGraph } from "../../graph/graph.ts";
import { compileOptionsOf, type Model } from "../../models/index.ts";
import { packedContext } from "../../nn/attention.ts";
import type { Executable } from "../../runtime/backend.ts";
import { Tensor } from "../../tensor/tensor.ts";

interface EmbeddingProgram {
  readonly executable: Executable;
  /** The most tokens of one run. */
  readonly bound: number;
  readonly tokens: Int32Array;
  readonly positions: Int32Array;
  readonly rows: Int32Array;
  readonly offsets: Int32Array;
  readonly sums: Float32Array;
}

/**
 * Embeds texts: the mean of the final hidden states of each, scaled to length 1. Texts are packed into batches of
 * up to the token budget; a longer one runs alone. Calls run one after another.
 */
export class Embedder {
  readonly #model: Model;
  readonly #budget: number;
  readonly #weights: Readonly<Record<string, TensorData>>;
  #program: EmbeddingProgram | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #pending = 0;

  constructor(model: Model, tokenBudget: number) {
    this.#model = model;
    this.#budget = tokenBudget;
    this.#weights = Object.fromEntries(model.parts.weights);
  }

  /** Calls that have not ended. */
  get pending(): number {
    return this.#pending;
  }

  /** Resolves once every call has ended. */
  async idle(): Promise<void> {
    while (this.#pending > 0) await this.#last;
  }

  /** Embeds inputs of at least one token each. @throws where the signal aborts, between two batches. */
  async embed(
    inputs: readonly (readonly number[])[],
    signal: AbortSignal | undefined,
  ): Promise<Float32Array[]> {
    this.#pending++;
    const run = this.#last.then(async () => {
      const results: Float32Array[] = [];
      for (const batch of this.#batches(inputs)) {
        signal?.throwIfAborted();
        results.push(...(await this.#run(batch)));
      }
      return results;
    });
    this.#last = run.catch(() => {});
    try {
      return await run;
    } finally {
      this.#pending--;
    }
  }

  /** Waits for what runs and frees native memory. */
  async dispose(): Promise<void> {
    await this.#last;
    this.#program?.executable.dispose();
    this.#program = undefined;
  }

  *#batches(inputs: readonly (readonly number[])[]): Generator<(readonly number[])[]> {
    let batch: (readonly number[])[] = [];
    let tokens = 0;
    for (const input of inputs) {
      if (batch.length > 0 && tokens + input.length > this.#budget) {
        yield batch;
        batch = [];
        tokens = 0;
      }
      batch.push(input);
      tokens += input.length;
    }
    if (batch.length > 0) yield batch;
  }

  async #run(batch: readonly (readonly number[])[]): Promise<Float32Array[]> {
    const total = batch.reduce((sum, input) => sum + input.length, 0);
    const { executable, bound, tokens, positions, rows, offsets, sums } = this.#programFor(total);
    let next = 0;
    for (const [row, input] of batch.entries()) {
      offsets[row] = next;
      for (const [position, id] of input.entries()) {
        tokens[next] = id;
        positions[next] = position;
        rows[next++] = row;
      }
    }
    offsets[batch.length] = next;
    const bindings = { ...this.#weights, tokens, positions, rows, offsets, sums };
    await executable.run(bindings, { tokens: total, offsets: batch.length + 1 });
    const size = sums.length / bound;
    return batch.map((_, row) => toUnitLength(sums.slice(row * size, (row + 1) * size)));
  }

  /** A program for so many tokens; the one that is there where it is large enough. */
  #programFor(total: number): EmbeddingProgram {
    const present = this.#program;
    if (present !== undefined && present.bound >= total) return present;
    present?.executable.dispose();
    const { backend, language, dtype } = this.#model.parts;
    const bound = Math.max(this.#budget, 2 ** Math.ceil(Math.log2(total)));
    const count = symbolic("tokens", bound);
    const input = (name: string, size: typeof count): Tensor =>
      new Tensor(leaf(name, "input", [size], "i32"));
    const context = packedContext(input("offsets", symbolic("offsets", bound + 1)));
    const hidden = language.hidden(input("tokens", count), input("positions", count), context, dtype);
    // The mean and the sum of a text's states point the same way.
    const sums = apply("scatter_add", [hidden.cast("f32").value, input("rows", count).value], {
      rows: bound,
    });
    const size = hidden.shape[1] as number;
    this.#program = {
      executable: backend.compile(
        buildGraph("embed", [{ name: "sums", value: sums }]),
        compileOptionsOf(this.#model.parts),
      ),
      bound,
      tokens: backend.allocate("i32", bound) as Int32Array,
      positions: backend.allocate("i32", bound) as Int32Array,
      rows: backend.allocate("i32", bound) as Int32Array,
      offsets: backend.allocate("i32", bound + 1) as Int32Array,
      sums: backend.allocate("f32", bound * size) as Float32Array,
    };
    return this.#program;
  }
}

function toUnitLength(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector);
  return length === 0 ? vector : vector.map((value) => value / length);
}
