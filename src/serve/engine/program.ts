import type { TensorData } from "../../base/dtype.ts";
import { type SymbolValues, symbolic } from "../../base/shape.ts";
import { leaf } from "../../graph/build.ts";
import { buildGraph } from "../../graph/graph.ts";
import { compileOptionsOf, type Model, projectLogits } from "../../models/index.ts";
import type { BoundExecutable, Executable, RunStatistics } from "../../runtime/backend.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { StepPlan } from "../core/types.ts";
import type { TokenConstraint } from "../structured/types.ts";
import type { PagedCache } from "./cache.ts";
import type { EngineLimits } from "./options.ts";
import { maximumBiases } from "./request_checks.ts";
import { SamplingRows } from "./sampling_rows.ts";
import type { SamplingState } from "./sampling_state.ts";

/** How one row is sampled. */
export interface SampledRow {
  readonly sampling: SamplingState;
  readonly constraint: TokenConstraint | undefined;
}

/**
 * The one program that runs every step, whatever the batch is made of. Its operands, all allocated once at
 * their bounds and written anew each step:
 *
 *   tokens, positions, slots   i32 [tokens]             the chunks of the plan, one after another
 *   query_offsets              i32 [sequences + 1]      where each chunk begins
 *   context_lengths            i32 [sequences]          tokens of each sequence in the cache after the step
 *   block_tables               i32 [sequences, width]   its blocks
 *   rows                       i32 [samples]            the tokens after which one is to be sampled
 *   and those of `SamplingRows`
 *
 * Keys and values are the states of a `PagedCache`.
 */
export class StepProgram {
  readonly #executable: Executable;
  readonly #bound: BoundExecutable;
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
  readonly #sampling: SamplingRows;
  #symbols: SymbolValues = {};

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
    this.#sampling = new SamplingRows(
      backend,
      {
        rows: maximumSequences,
        vocabularySize,
        history: Math.min(maximumContext, vocabularySize),
        biases: maximumBiases,
      },
      samples,
    );
    Object.assign(this.#bindings, this.#sampling.bindings);
    this.#executable = backend.compile(
      buildGraph("serve", this.#sampling.outputs(logits)),
      compileOptionsOf(model.parts),
    );
    this.#bound = this.#executable.bind(this.#bindings);
    this.#tokens = this.#bindings.tokens as Int32Array;
    this.#positions = this.#bindings.positions as Int32Array;
    this.#slots = this.#bindings.slots as Int32Array;
    this.#offsets = this.#bindings.query_offsets as Int32Array;
    this.#lengths = this.#bindings.context_lengths as Int32Array;
    this.#tables = this.#bindings.block_tables as Int32Array;
    this.#rows = this.#bindings.rows as Int32Array;
  }

  /**
   * Writes a plan into the operands.
   * @param rowOf how a sequence that gets a token is sampled
   * @returns the sequences that get a token, in the order of their rows
   */
  fill({ chunks }: StepPlan, rowOf: (sequence: number) => SampledRow): number[] {
    const { blockSize } = this.#limits;
    const sampled: number[] = [];
    let token = 0;
    this.#sampling.clear();
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
        const { sampling, constraint } = rowOf(sequence);
        this.#sampling.add(sampling, constraint);
      }
    }
    this.#offsets[chunks.length] = token;
    this.#symbols = {
      tokens: token,
      sequences: chunks.length,
      offsets: chunks.length + 1,
      ...this.#sampling.symbols,
    };
    return sampled;
  }

  /**
   * Runs so many tokens of one sequence that are written nowhere and gives the seconds. After the first call, what is
   * prepared once from the weights is there.
   */
  async measure(tokens: number): Promise<number> {
    this.#sampling.clear();
    for (let token = 0; token < tokens; token++) {
      this.#tokens[token] = 0;
      this.#positions[token] = token;
      this.#slots[token] = -1;
    }
    this.#tables.fill(0, 0, this.#width);
    this.#offsets[0] = 0;
    this.#offsets[1] = this.#lengths[0] = tokens;
    this.#symbols = { tokens, sequences: 1, offsets: 2, ...this.#sampling.symbols };
    return (await this.run()).seconds;
  }

  /** Runs what `fill` wrote, off the event loop. */
  run(): Promise<RunStatistics> {
    return this.#bound.run(this.#symbols);
  }

  /** What the last run sampled, by row; valid until the next. */
  get sampled(): Pick<SamplingRows, "token" | "logprobs"> {
    return this.#sampling;
  }

  /** Frees native memory. */
  dispose(): void {
    this.#executable.dispose();
  }
}
