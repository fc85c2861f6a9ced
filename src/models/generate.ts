import type { TensorData } from "../base/dtype.ts";
import { DataError } from "../base/errors.ts";
import { symbolic } from "../base/shape.ts";
import { leaf } from "../graph/build.ts";
import { buildGraph } from "../graph/graph.ts";
import type { AttentionContext } from "../nn/attention.ts";
import type { Executable } from "../runtime/backend.ts";
import { cacheWrite, pagedAttention } from "../tensor/functions.ts";
import { Tensor } from "../tensor/tensor.ts";
import { packSequences } from "./batch.ts";
import { compileOptionsOf, type Model, projectLogits } from "./model.ts";
import { Sampler, type SamplingOptions } from "./sampling.ts";

/** How to generate. */
export interface GenerateOptions extends SamplingOptions {
  /** How many new tokens at the most; 64 by default. */
  readonly maxTokens?: number;
  /** Tokens that end the text; they are not part of it. */
  readonly stopTokens?: readonly number[];
  readonly signal?: AbortSignal;
}

const blockSize = 64;
/** Prompts run in pieces of this many tokens: enough to fill the machine, little enough for its caches. */
const chunk = 256;

/**
 * A model with a key/value cache for one sequence. Feed it tokens and it gives the logits of the last one.
 */
export class CachedDecoder {
  readonly #model: Model;
  readonly #executable: Executable;
  readonly #bindings: Record<string, TensorData>;
  readonly #capacity: number;
  #length = 0;

  /** @param capacity how many tokens the cache can hold. */
  constructor(model: Model, capacity: number) {
    const { backend, dtype, language, weights } = model.parts;
    const { layers, groups, headSize, vocabularySize } = model.facts;
    const blocks = Math.ceil(capacity / blockSize);
    this.#model = model;
    this.#capacity = capacity;
    const tokens = symbolic("tokens", Math.min(chunk, capacity));
    const input = (name: string, shape: readonly (number | typeof tokens)[]): Tensor =>
      new Tensor(leaf(name, "input", shape, "i32"));
    const slots = input("slots", [tokens]);
    const batch = {
      queryOffsets: input("query_offsets", [2]),
      contextLengths: input("context_lengths", [1]),
      blockTables: input("block_tables", [1, blocks]),
      blockSize,
    };
    const cacheShape = [blocks * blockSize, groups, headSize];
    this.#bindings = Object.fromEntries(weights);
    const cache = (name: string): Tensor => {
      this.#bindings[name] = backend.allocate(dtype, blocks * blockSize * groups * headSize);
      return new Tensor(leaf(name, "state", cacheShape, dtype));
    };
    const caches = Array.from({ length: layers }, (_, layer) => ({
      keys: cache(`cache.${layer}.keys`),
      values: cache(`cache.${layer}.values`),
    }));
    const context: AttentionContext = {
      attend: (layer, q, k, v, options) => {
        const { keys, values } = caches[layer]!;
        return pagedAttention(q, cacheWrite(keys, k, slots), cacheWrite(values, v, slots), batch, options);
      },
    };
    const hidden = language.hidden(input("tokens", [tokens]), input("positions", [tokens]), context, dtype);
    const last = hidden.gather(input("last", [1]));
    const logits = projectLogits(last, language.outputWeight);
    this.#executable = backend.compile(
      buildGraph("decode", [{ name: "logits", value: logits.value }]),
      compileOptionsOf(model.parts),
    );
    this.#bindings.block_tables = Int32Array.from({ length: blocks }, (_, block) => block);
    this.#bindings.logits = backend.allocate("f32", vocabularySize);
  }

  /** Tokens in the cache. */
  get length(): number {
    return this.#length;
  }

  /**
   * Adds tokens and gives the f32 logits `[vocabulary]` after the last of them; valid until the next call.
   * @throws DataError where the cache is full or an id is not in the vocabulary.
   */
  async feed(ids: readonly number[]): Promise<Float32Array> {
    packSequences([ids], this.#model.facts);
    if (this.#length + ids.length > this.#capacity) {
      throw new DataError("context_full", "the context is full", {
        expected: `at most ${this.#capacity} tokens`,
        received: `${this.#length + ids.length} tokens`,
      });
    }
    for (let start = 0; start < ids.length; start += chunk) await this.#step(ids.slice(start, start + chunk));
    return this.#bindings.logits as Float32Array;
  }

  async #step(ids: readonly number[]): Promise<void> {
    const first = this.#length;
    const positions = Int32Array.from(ids, (_, index) => first + index);
    this.#length += ids.length;
    await this.#executable.run(
      {
        ...this.#bindings,
        tokens: Int32Array.from(ids),
        positions,
        // The blocks of the one sequence lie in order: a token's slot is its position.
        slots: positions,
        query_offsets: Int32Array.of(0, ids.length),
        context_lengths: Int32Array.of(this.#length),
        last: Int32Array.of(ids.length - 1),
      },
      { tokens: ids.length },
    );
  }

  dispose(): void {
    this.#executable.dispose();
  }
}

/**
 * Continues a prompt token by token.
 * @throws DataError where the prompt is empty, too long for the model, or holds unknown ids.
 */
export async function* generate(
  model: Model,
  prompt: readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<number, void, undefined> {
  const { maxTokens = 64, stopTokens = [], signal } = options;
  const capacity = Math.min(model.facts.maximumPositions, prompt.length + maxTokens);
  packSequences([prompt], model.facts);
  const decoder = new CachedDecoder(model, capacity);
  const sampler = new Sampler(options);
  try {
    let logits = await decoder.feed(prompt);
    for (let count = 0; count < maxTokens; count++) {
      if (signal?.aborted === true) return;
      const token = sampler.next(logits);
      if (stopTokens.includes(token)) return;
      yield token;
      if (decoder.length >= capacity || count + 1 === maxTokens) return;
      logits = await decoder.feed([token]);
    }
  } finally {
    decoder.dispose();
  }
}
