import type { Trace } from "../../runtime/trace.ts";

/** When a request reached each stage, in seconds of `performance.now`; undefined where it did not. */
export interface RequestTimes {
  readonly arrived: number;
  readonly scheduled: number | undefined;
  readonly firstToken: number | undefined;
  readonly ended: number;
}

/**
 * Where every request's time went: a lane a request, on which it was queued, then its prompt ran, then it was
 * decoded; and a lane of steps with their parts. Lanes of requests that ended are used again.
 */
export class RequestTrace {
  readonly #trace: Trace;
  readonly #steps: number;
  readonly #deliveries: number;
  /** The time, in the trace's seconds, when each lane is free. */
  readonly #lanes: { readonly lane: number; free: number }[] = [];
  /** Of `performance.now` in seconds, at the start of the trace. */
  readonly #origin: number;

  constructor(trace: Trace) {
    this.#trace = trace;
    this.#origin = performance.now() / 1000 - trace.now();
    this.#steps = trace.addLane("serving steps");
    this.#deliveries = trace.addLane("serving deliveries");
  }

  /** Records one part of a step; seconds of `performance.now`. */
  step(name: string, start: number, end: number, details: Readonly<Record<string, number>> = {}): void {
    this.#trace.span(this.#steps, name, "step", start - this.#origin, end - this.#origin, details);
  }

  /** Records when the last step's pieces were made and handed over: while the next step runs. */
  delivery(start: number, end: number): void {
    this.#trace.span(this.#deliveries, "deliver", "step", start - this.#origin, end - this.#origin);
  }

  /** Records a request that ended. */
  request(id: string, times: RequestTimes, details: Readonly<Record<string, string | number>>): void {
    const { arrived, scheduled, firstToken, ended } = times;
    const lane = this.#laneFrom(arrived - this.#origin, ended - this.#origin);
    const span = (name: string, start: number, end: number): void => {
      this.#trace.span(lane, name, "request", start - this.#origin, end - this.#origin, { id, ...details });
    };
    span("queued", arrived, scheduled ?? ended);
    if (scheduled !== undefined) span("prompt", scheduled, firstToken ?? ended);
    if (firstToken !== undefined) span("decode", firstToken, ended);
  }

  #laneFrom(start: number, end: number): number {
    let free = this.#lanes.find((lane) => lane.free <= start);
    if (free === undefined) {
      free = { lane: this.#trace.addLane(`requests ${this.#lanes.length + 1}`), free: 0 };
      this.#lanes.push(free);
    }
    free.free = end;
    return free.lane;
  }
}
