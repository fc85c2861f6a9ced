import { writeFileSync } from "node:fs";

/** One bar of the timeline. Times are seconds since the trace began. */
interface Span {
  readonly name: string;
  readonly category: string;
  readonly process: number;
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

/** What the parts of a trace have in common. */
class Timeline {
  readonly spans: Span[] = [];
  /** The names of the lanes, by the number of their process. */
  readonly lanes = new Map<number, string[]>();
  readonly began = performance.now() / 1000;
}

/** Processes of a timeline: 1 is what belongs to no rank. */
const firstRank = 2;

/**
 * Collects what ran when, and writes it in the Trace Event Format that Perfetto (ui.perfetto.dev) and
 * chrome://tracing open.
 */
export class Trace {
  readonly #timeline: Timeline;
  readonly #process: number;
  readonly #laneNames: string[];

  constructor(timeline: Timeline = new Timeline(), process = firstRank - 1) {
    this.#timeline = timeline;
    this.#process = process;
    this.#laneNames = timeline.lanes.get(process) ?? Object.values(laneNames);
    timeline.lanes.set(process, this.#laneNames);
  }

  /** The part of this timeline in which a rank records: lanes of its own, shown as a process of its own. */
  forRank(rank: number): Trace {
    return new Trace(this.#timeline, firstRank + rank);
  }

  /** Seconds since the trace began. */
  now(): number {
    return performance.now() / 1000 - this.#timeline.began;
  }

  /** Adds a lane below the others; `span` takes what it returns. */
  addLane(name: string): number {
    return this.#laneNames.push(name) - 1;
  }

  /** The lane of this name, added where there is none. */
  laneOf(name: string): number {
    const known = this.#laneNames.indexOf(name);
    return known >= 0 ? known : this.addLane(name);
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
    this.#timeline.spans.push({
      process: this.#process,
      lane: index,
      name,
      category,
      start,
      end,
      details,
    });
  }

  /** The timeline as Trace Event JSON, that of all ranks. */
  toJSON(): { traceEvents: object[]; displayTimeUnit: "ms" } {
    const processes = [...this.#timeline.lanes].sort(([a], [b]) => a - b);
    const names = processes.flatMap(([process, laneNames]) => [
      ...(process < firstRank ? [] : [metadata("process_name", process, 0, `rank ${process - firstRank}`)]),
      ...laneNames.map((name, thread) => metadata("thread_name", process, thread, name)),
    ]);
    const spans = this.#timeline.spans.map(({ name, category, process, lane, start, end, details }) => ({
      ph: "X",
      pid: process,
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

function metadata(kind: string, process: number, thread: number, name: string): object {
  return { ph: "M", pid: process, tid: thread, name: kind, args: { name } };
}
