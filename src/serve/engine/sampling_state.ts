import type { CheckedRequest } from "./request_checks.ts";

/** Log-probabilities of one sampled token: its own, and `[token, logprob]` of the likeliest. */
export interface RowLogprobs {
  readonly chosen: number;
  readonly top: readonly (readonly [number, number])[];
}

/** A list of biases: each id once. */
interface Biases {
  readonly ids: Int32Array;
  readonly values: Float32Array;
}

/** What sampling has to know of one answer, kept in the form in which the op takes it. */
export class SamplingState {
  /** A row of `samplingParameters`. */
  readonly parameters: Float32Array;
  /** A row of `samplingSeeds`, its position to be filled in. */
  readonly seeds: Int32Array;
  readonly #biases: Biases;
  /** The same with the tokens that may not come yet. */
  readonly #biasesBefore: Biases;
  readonly #minTokens: number;
  readonly #history: TokenHistory | undefined;
  #position = 0;

  /**
   * @param seed of the request, a safe integer @param answer its index
   * @param ending tokens that end the answer: banned until `minTokens` are there
   */
  constructor(
    request: CheckedRequest,
    prompt: readonly number[],
    options: { readonly seed: number; readonly answer: number; readonly ending: readonly number[] },
  ) {
    const { seed, answer, ending } = options;
    const { repetitionPenalty, presencePenalty, frequencyPenalty } = request;
    this.parameters = Float32Array.of(
      request.temperature,
      request.topK,
      request.topP,
      request.minP,
      repetitionPenalty,
      presencePenalty,
      frequencyPenalty,
      request.logprobs ?? -1,
    );
    this.seeds = Int32Array.of(seed, Math.floor(seed / 2 ** 32), 0, answer);
    this.#minTokens = request.minTokens;
    this.#biases = biasesOf(request.logitBias);
    const bans = ending.map((token) => [token, Number.NEGATIVE_INFINITY] as const);
    this.#biasesBefore =
      request.minTokens === 0 ? this.#biases : biasesOf(new Map([...request.logitBias, ...bans]));
    if (repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0) {
      // Only the repetition penalty looks at the prompt.
      this.#history = new TokenHistory(repetitionPenalty === 1 ? [] : prompt);
    }
  }

  /** Tokens of the answer so far: the place of the next one. */
  get position(): number {
    return this.#position;
  }

  /** The distinct tokens of prompt and answer, and how often each is in the answer; empty without penalties. */
  get history(): { readonly ids: Int32Array; readonly counts: Int32Array } {
    return this.#history ?? emptyHistory;
  }

  /** @param constrained whether a grammar says where the answer may end, and no minimum does */
  biases(constrained: boolean): Biases {
    return this.#position < this.#minTokens && !constrained ? this.#biasesBefore : this.#biases;
  }

  /** Takes the token that was chosen. */
  accept(token: number): void {
    this.#position++;
    this.#history?.add(token, 1);
  }
}

const emptyHistory = { ids: new Int32Array(0), counts: new Int32Array(0) };

function biasesOf(biases: ReadonlyMap<number, number>): Biases {
  return { ids: Int32Array.from(biases.keys()), values: Float32Array.from(biases.values()) };
}

/** Distinct tokens in the order in which they came, with counts, in memory that doubles as it fills. */
class TokenHistory {
  readonly #places = new Map<number, number>();
  #ids = new Int32Array(64);
  #counts = new Int32Array(64);

  constructor(prompt: readonly number[]) {
    for (const token of prompt) this.add(token, 0);
  }

  get ids(): Int32Array {
    return this.#ids.subarray(0, this.#places.size);
  }

  get counts(): Int32Array {
    return this.#counts.subarray(0, this.#places.size);
  }

  /** Counts a token so often more. */
  add(token: number, times: number): void {
    let place = this.#places.get(token);
    if (place === undefined) {
      place = this.#places.size;
      this.#places.set(token, place);
      if (place === this.#ids.length) {
        this.#ids = doubled(this.#ids);
        this.#counts = doubled(this.#counts);
      }
      this.#ids[place] = token;
    }
    this.#counts[place]! += times;
  }
}

function doubled(values: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(values.length * 2);
  larger.set(values);
  return larger;
}
