import type { TensorData } from "../../base/dtype.ts";
import { symbolic } from "../../base/shape.ts";
import { leaf } from "../../graph/build.ts";
import { buildGraph } from "../../graph/graph.ts";
import { type Model, projectLogits } from "../../models/index.ts";
import type { Executable, RunStatistics } from "../../runtime/backend.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { StepPlan } from "../core/types.ts";
import type { PagedCache } from "./cache.ts";
import type { EngineLimits } from "./options.ts";

/**
 * The one program that runs every step, whatever the batch is made of. Its operands, all allocated once at
 * their bounds and written anew each step:
 *
 *   tokens, positions, slots   i32 [tokens]             the chunks of the plan, one after another
 *   query_offsets              i32 [sequences + 1]      where each chunk begins
 *   context_lengths            i32 [sequences]          tokens of each sequence in the cache after the step
 *   block_tables               i32 [sequences, width]   its blocks
 *   rows                       i32 [samples]            the tokens after which one is to be sampled
 *
 * Keys and values are the states of a `PagedCache`.
 */
export class StepProgram {
  readonly #executable: Executable;
  readonly #bindings: Record<string, TensorData> = {};
  readonly #limits: EngineLimits;
  readonly #width: number;
  readonly #tokens: Int32Array;
  readonly #positions: Int32Array;
  readonly #slots: Int32Array;
  readonly #offsets: Int32Array;
  readonly #lengths: Int32Array;
  readonly #tables: Int32Array;
  readonly #rows: Int32Array;
  readonly #logits: Float32Array;
  #symbols = { tokens: 0, sequences: 0, offsets: 1, samples: 0 };

  constructor(model: Model, cache: PagedCache, limits: EngineLimits) {
    const { backend, dtype, language, weights } = model.parts;
    const { vocabularySize } = model.facts;
    const { tokenBudget, maximumSequences, maximumContext, blockSize } = limits;
    this.#limits = limits;
    this.#width = Math.ceil(maximumContext / blockSize);
    const tokens = symbolic("tokens", tokenBudget);
    const sequences = symbolic("sequences", maximumSequences);
    const samples = symbolic("samples", maximumSequences);
    Object.assign(this.#bindings, Object.fromEntries(weights), cache.bindings);
    const input = (name: string, shape: readonly (number | typeof tokens)[]): Tensor => {
      const elements = shape.reduce<number>(
        (product, size) => product * (typeof size === "number" ? size : size.bound),
        1,
      );
      this.#bindings[name] = backend.allocate("i32", elements);
      return new Tensor(leaf(name, "input", shape, "i32"));
    };
    const slots = input("slots", [tokens]);
    const batch = {
      queryOffsets: input("query_offsets", [symbolic("offsets", maximumSequences + 1)]),
      contextLengths: input("context_lengths", [sequences]),
      blockTables: input("block_tables", [sequences, this.#width]),
      blockSize,
    };
    const context = cache.context(slots, batch);
    const hidden = language.hidden(input("tokens", [tokens]), input("positions", [tokens]), context, dtype);
    const due = hidden.gather(input("rows", [samples]));
    const logits = projectLogits(due, language.outputWeight);
    this.#bindings.logits = backend.allocate("f32", maximumSequences * vocabularySize);
    this.#executable = backend.compile(buildGraph("serve", [{ name: "logits", value: logits.value }]));
    this.#tokens = this.#bindings.tokens as Int32Array;
    this.#positions = this.#bindings.positions as Int32Array;
    this.#slots = this.#bindings.slots as Int32Array;
    this.#offsets = this.#bindings.query_offsets as Int32Array;
    this.#lengths = this.#bindings.context_lengths as Int32Array;
    this.#tables = this.#bindings.block_tables as Int32Array;
    this.#rows = this.#bindings.rows as Int32Array;
    this.#logits = this.#bindings.logits as Float32Array;
  }

  /** Writes a plan into the operands. Gives the sequences that get a token, in the order of their rows. */
  fill({ chunks }: StepPlan): number[] {
    const { blockSize } = this.#limits;
    const sampled: number[] = [];
    let token = 0;
    for (const [index, { start, tokens, blockTable, samples }] of chunks.entries()) {
      this.#offsets[index] = token;
      this.#lengths[index] = start + tokens.length;
      this.#tables.set(blockTable, index * this.#width);
      for (let offset = 0; offset < tokens.length; offset++, token++) {
        const position = start + offset;
        this.#tokens[token] = tokens[offset]!;
        this.#positions[token] = position;
        this.#slots[token] =
          blockTable[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      }
      for (const sequence of samples) {
        this.#rows[sampled.length] = token - 1;
        sampled.push(sequence);
      }
    }
    this.#offsets[chunks.length] = token;
    this.#symbols = {
      tokens: token,
      sequences: chunks.length,
      offsets: chunks.length + 1,
      samples: sampled.length,
    };
    return sampled;
  }

  /** Runs what `fill` wrote, off the event loop. */
  run(): Promise<RunStatistics> {
    return this.#executable.run(this.#bindings, this.#symbols);
  }

  /** Logits of a row of the last run: f32 [vocabulary]; valid until the next. */
  logits(row: number): Float32Array {
    const size = this.#logits.length / this.#limits.maximumSequences;
    return this.#logits.subarray(row * size, (row + 1) * size);
  }

  /** Bytes that the program and its cache hold. */
  get bytes(): number {
    const { arena, prepared, constants, bound, scratch } = this.#executable.memory;
    return arena + prepared + constants + bound + scratch;
  }

  /** Frees native memory. */
  dispose(): void {
    this.#executable.dispose();
  }
}
