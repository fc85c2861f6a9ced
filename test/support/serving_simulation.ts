import { expect } from "vitest";
import {
  type CoreOptions,
  type CoreRequest,
  type SampledToken,
  Scheduler,
  type SequenceInfo,
  type StepPlan,
} from "../../src/serve/core/index.ts";

/** What the simulated model says: the token of an answer at a place in it. */
export type SimulatedModel = (request: string, answer: number, place: number) => number;

interface SimulatedSequence extends SequenceInfo {
  readonly salt: string;
  readonly promptLength: number;
  /** The answer's length at its end, and whether the simulated model says so by itself. */
  readonly due: number;
  readonly stops: boolean;
  readonly right: readonly [number, number, number];
  tokens: number[];
  readonly histories: number[];
}

/** A request and, for each answer, after how many tokens the model ends it (never by default). */
export interface SimulatedRequest extends CoreRequest {
  readonly stopAfter?: readonly number[];
}

/**
 * Drives a scheduler with a key/value cache in which every slot says which tokens it was computed from: that of a
 * position stands for the token there and all before it, as keys and values do. It checks each plan against the
 * tokens that the sequences must have, and keeps its own books of who is due how much.
 */
export class ServingSimulation {
  readonly scheduler: Scheduler;
  readonly options: CoreOptions;
  /** Tokens run in all steps. */
  tokensRun = 0;
  steps = 0;
  readonly copies: StepPlan["copies"][number][] = [];
  readonly live = new Map<number, SimulatedSequence>();
  /** Those that ended too: one may still compute the prompt for its fellow answers. */
  readonly #known = new Map<number, SimulatedSequence>();
  /** Answers that ended by themselves or by length. */
  readonly finished = new Map<string, number[][]>();
  /** Sequences that hold blocks, by what the plans said. */
  readonly #started = new Set<number>();
  readonly #slots: number[];
  readonly #histories = new Map<string, number>();
  readonly #model: SimulatedModel;
  #arrivals = 0;

  constructor(
    options: Partial<CoreOptions> = {},
    model: SimulatedModel = (_, answer, place) => answer + place,
  ) {
    this.options = {
      policy: "splitfuse",
      blockSize: 4,
      blocks: 64,
      tokenBudget: 16,
      maximumSequences: 8,
      maximumWaiting: 100,
      maximumContext: 256,
      prefixCaching: true,
      ...options,
    };
    this.scheduler = new Scheduler(this.options);
    this.#model = model;
    this.#slots = new Array<number>(this.options.blocks * this.options.blockSize).fill(-1);
  }

  add(request: SimulatedRequest): ReturnType<Scheduler["add"]> {
    const added = this.scheduler.add(request);
    if ("refusal" in added) return added;
    const arrival = this.#arrivals++;
    const room = Math.min(request.maximumTokens, this.options.maximumContext - request.prompt.length);
    for (const info of added.sequences) {
      const stop = request.stopAfter?.[info.answer] ?? Number.POSITIVE_INFINITY;
      const sequence: SimulatedSequence = {
        ...info,
        salt: request.cacheSalt ?? "none",
        promptLength: request.prompt.length,
        due: Math.min(room, stop),
        stops: stop <= room,
        right: [request.priority ?? 0, arrival, info.answer],
        tokens: [...request.prompt],
        histories: [],
      };
      this.live.set(info.sequence, sequence);
      this.#known.set(info.sequence, sequence);
    }
    return added;
  }

  abort(request: string): void {
    this.scheduler.abort(request);
    for (const sequence of this.live.values()) {
      if (sequence.request === request) this.#leave(sequence.sequence);
    }
  }

  finish(sequence: number): void {
    this.scheduler.finish(sequence);
    this.#leave(sequence);
  }

  preemptLatest(): void {
    const sequence = this.scheduler.preemptLatest();
    if (sequence !== undefined) this.#started.delete(sequence);
  }

  /** Plans a step and runs it in the simulated cache. */
  plan(): StepPlan {
    const working = this.scheduler.hasWork();
    const plan = this.scheduler.schedule();
    this.scheduler.check();
    this.#checkPlan(plan, working);
    for (const { source, destination } of plan.copies) this.#copy(source, destination);
    for (const chunk of plan.chunks) {
      const { tokens } = this.#find(chunk.sequence);
      expect(chunk.tokens).toEqual(tokens.slice(chunk.start, chunk.start + chunk.tokens.length));
      const histories = this.#historiesOf(chunk.sequence);
      chunk.tokens.forEach((_, index) => {
        this.#slots[this.#slot(chunk.blockTable, chunk.start + index)] = histories[chunk.start + index]!;
      });
    }
    for (const chunk of plan.chunks) {
      const end = chunk.start + chunk.tokens.length;
      const seen = Array.from(
        { length: end },
        (_, position) => this.#slots[this.#slot(chunk.blockTable, position)]!,
      );
      expect(seen).toEqual(this.#historiesOf(chunk.sequence).slice(0, end));
    }
    this.copies.push(...plan.copies);
    return plan;
  }

  /** Gives the scheduler what the simulated model says after the step. */
  complete(plan: StepPlan): void {
    this.steps++;
    this.tokensRun += plan.tokens;
    const results: SampledToken[] = [];
    const lengths: number[] = [];
    for (const id of plan.chunks.flatMap(({ samples }) => samples)) {
      const sequence = this.live.get(id);
      if (sequence === undefined) continue;
      const place = sequence.tokens.length - sequence.promptLength;
      const token = this.#model(sequence.request, sequence.answer, place);
      sequence.tokens.push(token);
      const ended = place + 1 === sequence.due;
      results.push({ sequence: id, token, finished: ended && sequence.stops });
      this.#started.add(id);
      if (!ended) continue;
      if (!sequence.stops) lengths.push(id);
      const answers = this.finished.get(sequence.request) ?? [];
      answers[sequence.answer] = sequence.tokens.slice(sequence.promptLength);
      this.finished.set(sequence.request, answers);
      this.#leave(id);
    }
    expect([...this.scheduler.update(results)].sort()).toEqual(lengths.sort());
    this.scheduler.check();
  }

  /** The step fails: it leaves rubbish wherever it would have written. */
  fail(plan: StepPlan): void {
    this.steps++;
    for (const { destination } of plan.copies) this.#fill(destination);
    for (const chunk of plan.chunks) {
      chunk.tokens.forEach((_, index) => {
        this.#slots[this.#slot(chunk.blockTable, chunk.start + index)] = -2;
      });
    }
    if (plan.chunks.length > 0) this.scheduler.discardStep();
    this.scheduler.check();
  }

  step(): StepPlan {
    const plan = this.plan();
    const copied = {
      ...plan,
      chunks: plan.chunks.map((chunk) => ({ ...chunk, blockTable: [...chunk.blockTable] })),
    };
    this.complete(plan);
    return copied;
  }

  /** Steps until there is no work. */
  drain(limit = 10_000): void {
    for (let steps = 0; this.scheduler.hasWork(); steps++) {
      expect(steps, "steps until every request had ended").toBeLessThan(limit);
      this.step();
    }
    expect(this.scheduler.statistics).toMatchObject({
      waiting: 0,
      running: 0,
      usedBlocks: 0,
      freeBlocks: this.options.blocks,
    });
    expect(this.live.size).toBe(0);
  }

  #leave(sequence: number): void {
    this.live.delete(sequence);
    this.#started.delete(sequence);
  }

  #checkPlan(plan: StepPlan, working: boolean): void {
    expect(plan.chunks.length > 0).toBe(working);
    expect(plan.tokens).toBe(plan.chunks.reduce((sum, { tokens }) => sum + tokens.length, 0));
    expect(plan.tokens).toBeLessThanOrEqual(this.options.tokenBudget);
    expect(plan.chunks.length).toBeLessThanOrEqual(this.options.maximumSequences);
    expect(new Set(plan.chunks.map(({ sequence }) => sequence)).size).toBe(plan.chunks.length);
    const destinations = plan.copies.map(({ destination }) => destination);
    expect(new Set(destinations).size).toBe(destinations.length);
    for (const { source } of plan.copies) expect(destinations).not.toContain(source);
    for (const id of plan.preempted) this.#started.delete(id);
    this.#checkFirst(plan);
    for (const chunk of plan.chunks) {
      this.#started.add(chunk.sequence);
      const { request, tokens, promptLength } = this.#find(chunk.sequence);
      const answers = [...this.live.values()].filter((other) => other.request === request);
      const wanted =
        tokens.length > promptLength ? [chunk.sequence] : answers.map(({ sequence }) => sequence);
      expect(
        wanted.some((id) => this.live.has(id)),
        "someone wants what is computed",
      ).toBe(true);
      expect(chunk.samples).toEqual(chunk.start + chunk.tokens.length === tokens.length ? wanted : []);
    }
  }

  /** Whoever has the right of way among those that run is in every step. */
  #checkFirst(plan: StepPlan): void {
    if (this.options.policy !== "splitfuse") return;
    const [first] = [...this.#started]
      .map((id) => this.live.get(id))
      .filter((sequence) => sequence !== undefined)
      .sort((a, b) => a.right[0] - b.right[0] || a.right[1] - b.right[1] || a.right[2] - b.right[2]);
    if (first !== undefined) expect(plan.chunks.map(({ sequence }) => sequence)).toContain(first.sequence);
  }

  /** Of each position of a sequence, a number that stands for its tokens up to there. */
  #historiesOf(id: number): readonly number[] {
    const { histories, tokens, salt } = this.#find(id);
    while (histories.length < tokens.length) {
      const before = histories.at(-1) ?? this.#intern(`salt ${salt}`);
      histories.push(this.#intern(`${before} ${tokens[histories.length]}`));
    }
    return histories;
  }

  #find(id: number): SimulatedSequence {
    const sequence = this.#known.get(id);
    if (sequence === undefined) throw new Error(`there is no sequence ${id}`);
    return sequence;
  }

  #intern(text: string): number {
    const known = this.#histories.get(text) ?? this.#histories.size;
    this.#histories.set(text, known);
    return known;
  }

  #slot(table: readonly number[], position: number): number {
    const { blockSize } = this.options;
    const block = table[Math.floor(position / blockSize)];
    if (block === undefined) throw new Error(`there is no block for position ${position}`);
    return block * blockSize + (position % blockSize);
  }

  #copy(source: number, destination: number): void {
    const { blockSize } = this.options;
    for (let slot = 0; slot < blockSize; slot++) {
      this.#slots[destination * blockSize + slot] = this.#slots[source * blockSize + slot]!;
    }
  }

  #fill(block: number): void {
    const { blockSize } = this.options;
    this.#slots.fill(-2, block * blockSize, (block + 1) * blockSize);
  }
}
