import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { InternalError } from "../../base/errors.ts";
import { Scheduler } from "../core/scheduler.ts";
import type {
  CoreOptions,
  CoreRequest,
  CoreStatistics,
  Refusal,
  SampledToken,
  SequenceInfo,
  StepPlan,
} from "../core/types.ts";
import type { PagedCache } from "./cache.ts";
import type { TestSwitches } from "./faults.ts";
import type { SampledRow, StepProgram } from "./program.ts";
import type { RequestTrace } from "./request_trace.ts";
import type { Answer, Delivery, RunningRequest, TextSources } from "./running_request.ts";
import type { EngineObserver } from "./types.ts";

/** What the loop works with. */
export interface StepLoopParts {
  readonly core: CoreOptions;
  readonly program: StepProgram;
  readonly cache: PagedCache;
  readonly sources: TextSources;
  readonly switches: TestSwitches;
  readonly trace: RequestTrace | undefined;
  /** Whether the backend runs programs off the event loop. */
  readonly concurrent: boolean;
  readonly observers: Set<EngineObserver>;
  /** Called once, when the loop gives up; requests have been failed. */
  readonly onDead: (reason: string) => void;
}

/** So many steps in a row may fail. */
const failuresToDie = 3;

const failed = "the model failed while it worked on this request";

/**
 * One step after another while there is work: schedule, write operands, run, take what was sampled, schedule the next.
 * What a step gave is turned into text and handed to consumers while the next one runs in native code.
 */
export class StepLoop {
  readonly #parts: StepLoopParts;
  readonly #requests = new Map<string, RunningRequest>();
  readonly #answers = new Map<number, Answer>();
  #scheduler: Scheduler;
  #deliveries: Delivery[] = [];
  #steps = 0;
  #failures = 0;
  #stopped = false;
  #wake: (() => void) | undefined;
  readonly #idle: (() => void)[] = [];
  readonly #ended: Promise<void>;

  constructor(parts: StepLoopParts) {
    this.#parts = parts;
    this.#scheduler = new Scheduler(parts.core);
    this.#ended = this.#run();
  }

  /** Requests whose last piece has not been delivered. */
  get open(): number {
    return this.#requests.size;
  }

  get statistics(): CoreStatistics {
    return this.#scheduler.statistics;
  }

  /** Takes a request in, or says why not. */
  add(
    request: RunningRequest,
    core: CoreRequest,
    makeAnswer: (info: SequenceInfo) => Answer,
  ): Refusal | undefined {
    const result = this.#scheduler.add(core);
    if ("refusal" in result) return result.refusal;
    try {
      request.answers = result.sequences.map((info) => makeAnswer(info));
    } catch (error) {
      this.#scheduler.abort(core.id);
      throw error;
    }
    for (const answer of request.answers) this.#answers.set(answer.sequence, answer);
    this.#requests.set(request.key, request);
    this.#wake?.();
    return undefined;
  }

  /** Ends a request from outside: its blocks are free after the step in flight at the latest. */
  abort(request: RunningRequest, error?: string): void {
    if (!this.#requests.has(request.key)) return;
    this.#scheduler.abort(request.key);
    request.end(error === undefined ? { reason: "abort" } : { reason: "error", error });
    this.#forget(request);
  }

  /** Ends every request. */
  abortAll(error?: string): void {
    for (const request of [...this.#requests.values()]) this.abort(request, error);
  }

  /** Resolves once there are no requests. */
  idle(): Promise<void> {
    if (this.#requests.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** Ends the loop after the step in flight. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake?.();
    await this.#ended;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const started = now();
      const plan = this.#plan();
      if (plan !== undefined) {
        await this.#step(plan, started);
        // A backend on the event loop would let nobody else have a turn.
        if (!this.#parts.concurrent) await nextTurn();
        continue;
      }
      this.#deliver();
      // Consumers may have ended requests or brought new ones.
      if (this.#stopped || this.#scheduler.hasWork()) continue;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    this.#deliver();
  }

  /** The next step; undefined where there is nothing to run. */
  #plan(): StepPlan | undefined {
    const { forcePreemption } = this.#parts.switches;
    try {
      if (!this.#scheduler.hasWork()) return undefined;
      if (forcePreemption > 0 && (this.#steps + 1) % forcePreemption === 0) this.#scheduler.preemptLatest();
      const plan = this.#scheduler.schedule();
      return plan.chunks.length === 0 ? undefined : plan;
    } catch (error) {
      this.#giveUpState(error);
      return undefined;
    }
  }

  async #step(plan: StepPlan, started: number): Promise<void> {
    const { program, trace, switches } = this.#parts;
    this.#steps++;
    const scheduled = now();
    this.#markScheduled(plan, scheduled);
    let sequences: number[];
    let programSeconds: number;
    let launched: number;
    let ran: number;
    try {
      sequences = program.fill(plan, (sequence) => this.#rowOf(sequence));
      launched = now();
      const running = this.#runProgram(plan);
      this.#deliver();
      trace?.delivery(launched, now());
      programSeconds = await running;
      ran = now();
    } catch (error) {
      this.#failStep(plan, error);
      return;
    }
    try {
      const results = this.#collect(sequences, ran);
      this.#scheduler.update(results);
      if (switches.check) this.#scheduler.check();
      this.#failures = 0;
    } catch (error) {
      this.#giveUpState(error);
    }
    const ended = now();
    if (trace !== undefined) {
      trace.step("schedule", started, scheduled);
      trace.step("fill", scheduled, launched);
      trace.step("program", launched, ran, { tokens: plan.tokens, sequences: plan.chunks.length });
      trace.step("update", ran, ended);
    }
    this.#report(plan, ended - started, programSeconds);
  }

  /** The forward pass with the copies before it: seconds in native code. */
  async #runProgram({ copies }: StepPlan): Promise<number> {
    const { program, cache, switches } = this.#parts;
    if (switches.stepDelay > 0) await sleep(switches.stepDelay);
    if (switches.failStep > 0 && this.#steps % switches.failStep === 0) {
      throw new InternalError(`step ${this.#steps} fails because the environment says so`);
    }
    if (copies.length > 0) await cache.copy(copies);
    return (await program.run()).seconds;
  }

  #rowOf(sequence: number): SampledRow {
    const answer = this.#answers.get(sequence);
    if (answer === undefined) throw new InternalError(`sequence ${sequence} runs and nobody wants it`);
    return answer;
  }

  #markScheduled({ chunks }: StepPlan, time: number): void {
    for (const chunk of chunks) {
      const request = this.#requests.get(chunk.request);
      if (request === undefined || request.scheduled !== undefined) continue;
      request.scheduled = time;
      request.cachedTokens = this.#scheduler.cachedTokens(chunk.request);
    }
  }

  /** Takes what was sampled: results for the scheduler, and deliveries for later. */
  #collect(sequences: readonly number[], time: number): SampledToken[] {
    const { sampled } = this.#parts.program;
    const results: SampledToken[] = [];
    for (const [row, sequence] of sequences.entries()) {
      const answer = this.#answers.get(sequence);
      // Ended while the step ran.
      if (answer === undefined || answer.ending !== undefined) continue;
      const token = sampled.token(row);
      const delivery = this.#accept(answer, token, row);
      if (delivery === undefined) {
        results.push({ sequence, token: 0, finished: true });
        continue;
      }
      this.#deliveries.push(delivery);
      results.push({ sequence, token, finished: delivery.ending !== undefined });
      this.#time(answer, time);
    }
    return results;
  }

  /** The delivery of a sampled token; undefined where the answer failed. */
  #accept(answer: Answer, token: number, row: number): Delivery | undefined {
    const { logprobs } = answer.request.checked;
    try {
      if (answer.fault !== undefined) throw answer.fault;
      if (token < 0) throw new InternalError(`sampling gave ${token} instead of a token`);
      return answer.accept(
        token,
        logprobs === undefined ? undefined : this.#parts.program.sampled.logprobs(row, logprobs),
      );
    } catch (error) {
      this.#failAnswer(answer, error);
      return undefined;
    }
  }

  #time(answer: Answer, time: number): void {
    const { request } = answer;
    if (request.firstToken === undefined) {
      request.firstToken = time;
      this.#tell((observer) => observer.firstToken?.(time - request.arrived));
    }
    const since = answer.lastToken;
    answer.lastToken = time;
    if (since !== undefined) this.#tell((observer) => observer.interToken?.(time - since));
  }

  /** Turns what the last step gave into text and hands it to consumers. */
  #deliver(): void {
    const deliveries = this.#deliveries;
    this.#deliveries = [];
    for (const delivery of deliveries) {
      const { answer } = delivery;
      const { request } = answer;
      if (request.ended) continue;
      try {
        request.push(answer.piece(delivery, this.#parts.sources));
      } catch (error) {
        this.#failAnswer(answer, error);
        continue;
      }
      if (delivery.ending === undefined) continue;
      answer.delivered = true;
      if (request.complete) this.#finish(request);
    }
  }

  #finish(request: RunningRequest): void {
    request.close();
    this.#forget(request);
  }

  /** Nothing is known of the request any more, but by its consumer. */
  #forget(request: RunningRequest): void {
    this.#requests.delete(request.key);
    for (const { sequence } of request.answers) this.#answers.delete(sequence);
    const time = now();
    const report = request.report(time);
    this.#tell((observer) => observer.finished?.(report));
    this.#parts.trace?.request(
      request.id,
      { arrived: request.arrived, scheduled: request.scheduled, firstToken: request.firstToken, ended: time },
      {
        promptTokens: report.promptTokens,
        cachedTokens: report.cachedTokens,
        answerTokens: report.answerTokens,
        finish: report.finishReasons.join(", "),
      },
    );
    if (this.#requests.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** One answer cannot go on: the others of the batch do. */
  #failAnswer(answer: Answer, error: unknown): void {
    this.#tell((observer) => observer.failed?.(error));
    this.#scheduler.finish(answer.sequence);
    const { request } = answer;
    request.endAnswer(answer, { reason: "error", error: "this answer could not be continued" });
    if (request.complete) this.#finish(request);
  }

  /** The forward pass failed: its requests end, the others go on. */
  #failStep({ chunks }: StepPlan, error: unknown): void {
    this.#tell((observer) => observer.failed?.(error));
    this.#deliver();
    try {
      this.#scheduler.discardStep();
    } catch (second) {
      this.#giveUpState(second);
      return;
    }
    for (const key of new Set(chunks.map((chunk) => chunk.request))) {
      const request = this.#requests.get(key);
      if (request !== undefined) this.abort(request, failed);
      else this.#scheduler.abort(key);
    }
    this.#countFailure();
  }

  /** What the scheduler believes can no longer be trusted: every request ends and it starts anew. */
  #giveUpState(error: unknown): void {
    this.#tell((observer) => observer.failed?.(error));
    this.#deliver();
    this.#scheduler = new Scheduler(this.#parts.core);
    this.abortAll(failed);
    this.#answers.clear();
    this.#countFailure();
  }

  #countFailure(): void {
    if (++this.#failures < failuresToDie) return;
    this.#stopped = true;
    this.#parts.onDead(`${this.#failures} steps in a row failed`);
    this.abortAll(failed);
  }

  #report(plan: StepPlan, seconds: number, programSeconds: number): void {
    if (this.#parts.observers.size === 0) return;
    let promptTokens = 0;
    for (const { prompt, start, tokens } of plan.chunks.map((chunk) => ({
      ...chunk,
      prompt: this.#requests.get(chunk.request)?.prompt.length ?? 0,
    }))) {
      promptTokens += Math.max(0, Math.min(prompt - start, tokens.length));
    }
    const report = {
      seconds,
      programSeconds,
      tokens: plan.tokens,
      sequences: plan.chunks.length,
      preempted: plan.preempted.length,
      promptTokens,
      answerTokens: plan.tokens - promptTokens,
    };
    this.#tell((observer) => observer.step?.(report));
  }

  /** Observers cannot stop the loop. */
  #tell(call: (observer: EngineObserver) => void): void {
    for (const observer of this.#parts.observers) {
      try {
        call(observer);
      } catch {
        this.#parts.observers.delete(observer);
      }
    }
  }
}

/** Seconds. */
function now(): number {
  return performance.now() / 1000;
}
