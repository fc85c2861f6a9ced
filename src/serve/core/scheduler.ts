import { InternalError } from "../../base/errors.ts";
import { rootKey } from "./block_keys.ts";
import { checkOptions, checkRequest } from "./check_input.ts";
import { checkPlaces } from "./check_places.ts";
import { matchResults } from "./match_results.ts";
import { maximumLength, refuse } from "./refuse.ts";
import { type ActiveRequest, insertByRight, Sequence } from "./sequence.ts";
import { SequenceBlocks } from "./sequence_blocks.ts";
import type {
  Chunk,
  CoreOptions,
  CoreRequest,
  CoreStatistics,
  Refusal,
  SampledToken,
  SequenceInfo,
  StepPlan,
} from "./types.ts";
import { type Attempt, WaitingQueue } from "./waiting_queue.ts";

/**
 * Decides what each step runs. There is no prefill phase and no decode phase: every sequence has tokens that are
 * known and tokens that are computed, and a step runs some of the difference, decodes first, then pieces of prompts
 * up to the token budget (Dynamic SplitFuse, arXiv 2401.08671).
 *
 * Calls alternate: `schedule()`, run the plan, `update()` with what was sampled, or `discardStep()` if the step
 * failed. One plan at the most is in flight; an empty one never is. Everything else may be called at any time.
 *
 * Right of way: smaller priority, then earlier request, then earlier answer. A sequence that needs a block when none
 * is free takes those of the sequence with the least right of way, which goes back to the head of its queue and is
 * computed again later. Nobody takes from those before it, so the first of all runs in every step and ends.
 */
export class Scheduler {
  readonly #options: CoreOptions;
  readonly #blocks: SequenceBlocks;
  readonly #waiting = new WaitingQueue();
  /** By right of way. */
  readonly #running: Sequence[] = [];
  readonly #requests = new Map<string, ActiveRequest>();
  readonly #sequences = new Map<number, Sequence>();
  /** The sequences of the step in flight; undefined between steps. */
  #flight: readonly Sequence[] | undefined;
  #nextSequence = 0;
  #nextArrival = 0;
  #preemptions = 0;
  #prefixQueries = 0;
  #prefixHits = 0;

  /** The last plan had no blocks for those who wait. */
  #short = false;

  // The step that is being planned.
  #budget = 0;
  #decodes: Chunk[] = [];
  #pieces: Chunk[] = [];
  #planned: Sequence[] = [];
  /** Preempted since the last plan. */
  #preempted: number[] = [];

  /** @throws ConfigError where a limit is not a whole number of at least 1, or the budget is below `maximumSequences`. */
  constructor(options: CoreOptions) {
    checkOptions(options);
    this.#options = options;
    this.#blocks = new SequenceBlocks(options);
  }

  /**
   * Takes a request in, or says why not; a refused request leaves no trace. Only those for
   * whom the next step has no room count as waiting: a burst that can start at once is not refused as `queue_full`.
   * @throws InternalError for what its caller should have checked: an empty prompt, counts below 1, an id in use.
   */
  add(request: CoreRequest): { readonly sequences: readonly SequenceInfo[] } | { readonly refusal: Refusal } {
    checkRequest(request);
    if (this.#requests.has(request.id)) throw new InternalError(`request ${request.id} was added before`);
    const refusal = refuse(request, this.#options, () => this.#unplaced(request.answers));
    if (refusal !== undefined) return { refusal };
    const active: ActiveRequest = {
      id: request.id,
      arrival: this.#nextArrival++,
      priority: request.priority ?? 0,
      tenant: request.tenant ?? "",
      promptLength: request.prompt.length,
      maximumLength: maximumLength(request, this.#options),
      rootKey: rootKey(request.cacheSalt),
      sequences: new Set(),
      cachedTokens: undefined,
    };
    this.#requests.set(active.id, active);
    const first = new Sequence(this.#nextSequence++, active, 0, [...request.prompt]);
    this.#enlist(first);
    for (let answer = 1; answer < request.answers; answer++) {
      const fork = new Sequence(this.#nextSequence++, active, answer, []);
      fork.carrier = first;
      first.forks.push(fork);
      this.#enlist(fork);
    }
    this.#waiting.add(first);
    return {
      sequences: [...active.sequences].map(({ id, answer }) => ({
        sequence: id,
        request: active.id,
        answer,
      })),
    };
  }

  /**
   * Plans the next step. While there is work the plan has at least one chunk; it is in flight until `update` or
   * `discardStep`. Chunks of one token stand before longer ones.
   */
  schedule(): StepPlan {
    if (this.#flight !== undefined) throw new InternalError("a step is planned while another is in flight");
    this.#budget = this.#options.tokenBudget;
    this.#decodes = [];
    this.#pieces = [];
    this.#planned = [];
    const wasShort = this.#short;
    this.#short = false;
    const preemptions = this.#preemptions;
    if (this.#options.policy === "splitfuse") {
      this.#assignDecodes();
      this.#shareBudget();
      this.#assignPieces(wasShort);
      this.#place();
      this.#admit(preemptions);
    } else {
      this.#assignPieces(wasShort);
      this.#place();
      this.#admit(preemptions);
      if (this.#planned.length === 0) {
        this.#assignDecodes();
        this.#place();
      }
    }
    if (this.#planned.length > 0) this.#flight = this.#planned;
    const preempted = this.#preempted.filter((id) => this.#sequences.has(id));
    this.#preempted = [];
    return {
      chunks: this.#decodes.concat(this.#pieces),
      copies: this.#blocks.copies,
      preempted,
      tokens: this.#planned.reduce((sum, sequence) => sum + sequence.planned, 0),
    };
  }

  /**
   * Takes the results of the step in flight: exactly one for each sequence of its `samples` that is still wanted;
   * those of sequences aborted meanwhile are ignored. Now what the step computed may be shared, and what was aborted
   * is freed.
   * @returns the sequences that ended by `maximumTokens` or `maximumContext`
   * @throws InternalError where results are missing, double or of unknown sequences; the step is still in flight
   */
  update(results: readonly SampledToken[]): readonly number[] {
    const flight = this.#flight;
    if (flight === undefined) {
      if (results.length === 0) return [];
      throw new InternalError(`${results.length} results came and no step is in flight`);
    }
    const sampled = matchResults(this.#sequences, flight, results);
    this.#flight = undefined;
    for (const sequence of flight) this.#blocks.advance(sequence);
    this.#blocks.settleCopies();
    for (const sequence of flight) if (sequence.due) this.#part(sequence);
    const lengths: number[] = [];
    for (const [sequence, { token, finished }] of sampled) {
      sequence.due = false;
      if (sequence.ended) continue;
      sequence.tokens.push(token);
      const full = sequence.tokens.length >= sequence.request.maximumLength;
      if (full && !finished) lengths.push(sequence.id);
      if (full || finished) this.#end(sequence);
    }
    for (const sequence of flight) if (sequence.ended) this.#end(sequence);
    return lengths;
  }

  /**
   * The step in flight failed: everything is as if it had not been planned, except that preempted sequences stay
   * preempted and admitted ones admitted. No token of it counts as computed, nothing that it may have written is
   * shared or read, and copies that it may not have made are undone. What sequences had computed before is held to
   * be intact: the same tokens will be planned again, unless they are aborted.
   */
  discardStep(): void {
    const flight = this.#flight;
    if (flight === undefined) throw new InternalError("there is no step in flight to discard");
    this.#flight = undefined;
    this.#blocks.undoCopies();
    for (const sequence of flight) {
      sequence.planned = 0;
      sequence.due = false;
      for (const fork of [...sequence.forks]) {
        fork.due = false;
        if (fork.ended) this.#end(fork);
      }
    }
    for (const sequence of flight) {
      if (sequence.ended && this.#sequences.has(sequence.id)) this.#end(sequence);
    }
  }

  /**
   * Ends all answers of a request, at once if they are not in a step in flight, else when it ends. Does nothing for
   * a request that has ended.
   */
  abort(request: string): void {
    const active = this.#requests.get(request);
    if (active === undefined) return;
    // Backwards: answers that wait for their carrier go before it.
    for (const sequence of [...active.sequences].reverse()) this.finish(sequence.id);
  }

  /** Ends one answer in the same way, such as one in which a stop text was found. */
  finish(sequence: number): void {
    const found = this.#sequences.get(sequence);
    if (found !== undefined) this.#end(found);
  }

  /** Whether `schedule` would plan anything. */
  hasWork(): boolean {
    return this.#running.length > 0 || this.#waiting.size > 0;
  }

  /**
   * Takes its blocks from the running sequence with the least right of way, as if they had run out.
   * @returns the sequence, which the next plan names as preempted too, or undefined where none runs
   */
  preemptLatest(): number | undefined {
    if (this.#flight !== undefined)
      throw new InternalError("a sequence is preempted while a step is in flight");
    return this.#running.length === 0 ? undefined : this.#preempt().id;
  }

  /** Prompt tokens of a request that were found in the prefix cache; 0 before it runs and after it ended. */
  cachedTokens(request: string): number {
    return this.#requests.get(request)?.cachedTokens ?? 0;
  }

  /**
   * Makes the prefix cache forget all contents, as when the model's weights change. Running sequences keep theirs,
   * and what they compute from now on may be shared.
   */
  resetPrefixCache(): void {
    this.#blocks.resetPrefixCache();
  }

  get statistics(): CoreStatistics {
    const { pool } = this.#blocks;
    return {
      waiting: this.#waiting.size,
      running: this.#running.length,
      freeBlocks: pool.free,
      usedBlocks: pool.size - pool.free,
      blocks: pool.size,
      preemptions: this.#preemptions,
      prefixQueries: this.#prefixQueries,
      prefixHits: this.#prefixHits,
    };
  }

  /**
   * Recounts every block and every list: for tests, after each step.
   * @throws InternalError naming what does not agree
   */
  check(): void {
    this.#blocks.check(this.#running);
    checkPlaces(this.#running, this.#waiting, this.#sequences);
    if (this.#places() > this.#options.maximumSequences) {
      throw new InternalError(`${this.#places()} sequences run`);
    }
  }

  /** How many would find no room in the next step if a request of so many answers were added, as far as is known. */
  #unplaced(answers: number): number {
    if (this.#short) return this.#waiting.size + 1;
    let places = this.#places();
    let placed = 0;
    for (const sequence of this.#waiting) {
      places += sequence.places;
      if (places > this.#options.maximumSequences) return this.#waiting.size - placed + 1;
      placed++;
    }
    return places + answers > this.#options.maximumSequences ? 1 : 0;
  }

  #enlist(sequence: Sequence): void {
    sequence.request.sequences.add(sequence);
    this.#sequences.set(sequence.id, sequence);
  }

  /** Places that running sequences take, with the answers that they carry. */
  #places(): number {
    let places = 0;
    for (const sequence of this.#running) places += sequence.places;
    return places;
  }

  #assignDecodes(): void {
    for (const sequence of this.#running) {
      if (!sequence.decodes || this.#budget === 0) continue;
      sequence.planned = 1;
      this.#budget--;
    }
  }

  /** Leaves to prompts what steps with answers allow them. */
  #shareBudget(): void {
    const { tokenBudget, mixedTokenBudget = tokenBudget } = this.#options;
    const answers = tokenBudget - this.#budget;
    if (answers === 0) return;
    this.#budget = Math.min(this.#budget, Math.max(mixedTokenBudget - answers, answers));
  }

  #assignPieces(wasShort: boolean): void {
    for (const sequence of this.#running) {
      if (sequence.decodes) continue;
      const spared = wasShort ? 0 : this.#wantedAhead(sequence.request.priority);
      // Never nothing: the first of all goes on even if those ahead of it then find no blocks.
      const piece = this.#piece(
        sequence.remaining,
        Math.max(Math.min(1, this.#budget), this.#budget - spared),
      );
      sequence.planned = piece;
      this.#budget -= piece;
    }
  }

  /** Budget that those who wait with a smaller priority would take, if there are places for them. */
  #wantedAhead(priority: number): number {
    const { policy, maximumSequences } = this.#options;
    if (policy !== "splitfuse") return 0;
    let tokens = 0;
    let places = this.#places();
    for (const sequence of this.#waiting) {
      places += sequence.places;
      if (sequence.request.priority >= priority || places > maximumSequences || tokens >= this.#budget) break;
      if (sequence.awaited?.settled !== false) tokens += sequence.tokens.length;
    }
    return tokens;
  }

  /** How much of `remaining` tokens of a prompt fits into what is left of the step. */
  #piece(remaining: number, budget: number): number {
    const { policy, tokenBudget } = this.#options;
    if (remaining <= budget) return remaining;
    // Whole prompts, unless even a whole step is too short.
    if (policy === "prefill-first" && budget < tokenBudget) return 0;
    return budget;
  }

  /** Gives the running sequences blocks for what was assigned to them, in their order. */
  #place(): void {
    for (let index = 0; index < this.#running.length; index++) {
      const sequence = this.#running[index]!;
      if (sequence.planned === 0) continue;
      sequence.planned = this.#blocks.reserve(sequence, sequence.planned, () => {
        if (index === this.#running.length - 1) return false;
        this.#preempt();
        return true;
      });
      if (sequence.planned > 0) this.#include(sequence);
      else if (index === 0) throw new InternalError(`sequence ${sequence.id} has all blocks and needs more`);
    }
  }

  /**
   * Starts waiting sequences while budget, places and blocks last. Takes nothing from those that run, and starts
   * nobody in a step for which others lost their blocks.
   * @param preemptions their number before this step
   */
  #admit(preemptions: number): void {
    if (this.#preemptions > preemptions) {
      this.#short = true;
      return;
    }
    let places = this.#options.maximumSequences - this.#places();
    if (this.#budget === 0 || places <= 0 || this.#waiting.size === 0) return;
    // Blocks that running sequences still need for what they know, and soon one more each.
    let promised = 0;
    for (const sequence of this.#running) promised += this.#outstanding(sequence) + 1;
    this.#waiting.startEach((sequence): Attempt => {
      if (this.#budget === 0) return "refused";
      if (sequence.awaited?.settled === false) return "deferred";
      sequence.awaited = undefined;
      const cached = this.#blocks.cachedPrefix(sequence);
      if (this.#blocks.isWorthWaiting(sequence, cached)) return "deferred";
      if (sequence.places > places) return "refused";
      const { blockSize, pool } = this.#blocks;
      const rewritten = cached.tokens < cached.blocks.length * blockSize ? 1 : 0;
      const needed =
        this.#blocks.blocksFor(sequence.tokens.length) -
        cached.blocks.length +
        rewritten +
        sequence.forks.length;
      if (this.#running.length > 0 && needed + promised > pool.free - cached.unheld) {
        this.#short = true;
        return "refused";
      }
      const piece = this.#piece(sequence.tokens.length - cached.tokens, this.#budget);
      if (piece === 0) return "refused";

      this.#blocks.start(sequence, cached);
      insertByRight(this.#running, sequence);
      this.#count(sequence, cached.tokens);
      sequence.planned = this.#blocks.reserve(sequence, piece, () => false);
      if (sequence.planned === 0) {
        throw new InternalError(`sequence ${sequence.id} was admitted and there is no block for it`);
      }
      this.#budget -= sequence.planned;
      this.#include(sequence);
      places -= sequence.places;
      promised += this.#outstanding(sequence) + 1;
      return "started";
    });
  }

  /** Blocks that a running sequence needs for the tokens it knows, and for copies when its answers part. */
  #outstanding(sequence: Sequence): number {
    const needed = this.#blocks.blocksFor(sequence.tokens.length) - sequence.table.length;
    return Math.max(0, needed) + sequence.forks.length;
  }

  #count({ request }: Sequence, cachedTokens: number): void {
    if (request.cachedTokens !== undefined) return;
    request.cachedTokens = cachedTokens;
    if (!this.#options.prefixCaching) return;
    this.#prefixQueries += request.promptLength;
    this.#prefixHits += cachedTokens;
  }

  #include(sequence: Sequence): void {
    const { tokens, computed: start, planned, table: blockTable } = sequence;
    const chunk: Chunk = {
      sequence: sequence.id,
      request: sequence.request.id,
      start,
      tokens: planned === 1 ? [tokens[start]!] : tokens.slice(start, start + planned),
      blockTable,
      samples: start + planned === tokens.length ? this.#samples(sequence) : [],
    };
    (planned === 1 ? this.#decodes : this.#pieces).push(chunk);
    this.#planned.push(sequence);
  }

  /** After the last known token every answer wants its next one. */
  #samples(sequence: Sequence): readonly number[] {
    sequence.due = true;
    if (sequence.forks.length === 0) return sequence.self;
    const samples = sequence.ended ? [] : [sequence.id];
    for (const fork of sequence.forks) {
      fork.due = true;
      samples.push(fork.id);
    }
    return samples;
  }

  /** Takes the blocks of the running sequence with the least right of way. */
  #preempt(): Sequence {
    const sequence = this.#running.pop()!;
    this.#blocks.release(sequence);
    this.#waiting.putBack(sequence);
    this.#preempted.push(sequence.id);
    this.#preemptions++;
    return sequence;
  }

  /** After the prompt, the answers that a sequence carries become sequences that share its blocks. */
  #part(carrier: Sequence): void {
    carrier.due = false;
    const forks = carrier.forks;
    carrier.forks = [];
    for (const fork of forks) {
      fork.carrier = undefined;
      fork.due = false;
      if (fork.ended) {
        this.#delist(fork);
        continue;
      }
      fork.tokens = [...carrier.tokens];
      this.#blocks.fork(carrier, fork);
      insertByRight(this.#running, fork);
    }
  }

  /** Ends a sequence, or marks it to be ended where a step in flight or the answers that it carries need it yet. */
  #end(sequence: Sequence): void {
    const inFlight = sequence.planned > 0 && this.#flight !== undefined;
    if (inFlight || sequence.due || sequence.forks.length > 0) {
      sequence.ended = true;
      return;
    }
    const { carrier } = sequence;
    if (carrier !== undefined) {
      carrier.forks.splice(carrier.forks.indexOf(sequence), 1);
      this.#delist(sequence);
      if (carrier.ended) this.#end(carrier);
      return;
    }
    const index = this.#running.indexOf(sequence);
    if (index >= 0) this.#running.splice(index, 1);
    else this.#waiting.remove(sequence);
    this.#blocks.release(sequence);
    this.#delist(sequence);
  }

  #delist(sequence: Sequence): void {
    this.#sequences.delete(sequence.id);
    const { request } = sequence;
    request.sequences.delete(sequence);
    if (request.sequences.size === 0) this.#requests.delete(request.id);
  }
}
