import { writeFileSync } from "node:fs";

/** One bar of the timeline. Times are seconds since the trace began. */
interface Span {
  readonly name: string;
  readonly category: string;
  readonly lane: number;
  readonly start: number;
  readonly end: number;
  readonly details: Readonly<Record<string, string | number>>;
}

/** The lanes of a timeline, top to bottom. */
export const lanes = { program: 0, kernels: 1, host: 2 } as const;

const laneNames: Record<keyof typeof lanes, string> = {
  program: "programs",
  kernels: "kernels",
  host: "TypeScript",
};

/**
 * Collects what ran when, and writes it in the Trace Event Format that Perfetto (ui.perfetto.dev) and
 * chrome://tracing open.
 */
export class Trace {
  readonly #spans: Span[] = [];
  readonly #laneNames: string[] = Object.values(laneNames);
  readonly #began = performance.now() / 1000;

  /** Seconds since the trace began. */
  now(): number {
    return performance.now() / 1000 - this.#began;
  }

  /** Adds a lane below the others; `span` takes what it returns. */
  addLane(name: string): number {
    return this.#laneNames.push(name) - 1;
  }

  /** Records something that ran from `start` to `end` (seconds since the trace began). */
  span(
    lane: keyof typeof lanes | number,
    name: string,
    category: string,
    start: number,
    end: number,
    details: Readonly<Record<string, string | number>> = {},
  ): void {
    const index = typeof lane === "number" ? lane : lanes[lane];
    this.#spans.push({ lane: index, name, category, start, end, details });
  }

  /** The timeline as Trace Event JSON. */
  toJSON(): { traceEvents: object[]; displayTimeUnit: "ms" } {
    const names = this.#laneNames.map((name, thread) => ({
      ph: "M",
      pid: 1,
      tid: thread,
      name: "thread_name",
      args: { name },
    }));
    const spans = this.#spans.map(({ name, category, lane, start, end, details }) => ({
      ph: "X",
      pid: 1,
      tid: lane,
      name,
      cat: category,
      ts: start * 1e6,
      dur: (end - start) * 1e6,
      args: details,
    }));
    return { traceEvents: [...names, ...spans], displayTimeUnit: "ms" };
  }

  /** Writes the timeline to a file. */
  write(path: string): void {
    writeFileSync(path, JSON.stringify(this));
  }
}
