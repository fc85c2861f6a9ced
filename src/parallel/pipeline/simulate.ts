import { InternalError } from "../../base/errors.ts";
import { type Action, type ActionKind, type ScheduleTable, stageOf } from "./schedules.ts";

/** How long things take: seconds of an action of a stage, and of the message from one stage to another. */
export interface ScheduleCosts {
  readonly seconds: (kind: ActionKind, stage: number) => number;
  /** From the end of an action to the start of the one that waits for it on another rank; none by default. */
  readonly transfer?: (from: number, to: number) => number;
}

/** When an action ran. Seconds since the step began. */
export interface TimedAction extends Action {
  readonly start: number;
  readonly end: number;
}

/** What a schedule comes to. */
export interface ScheduleTimes {
  /** Until the last rank is done. */
  readonly seconds: number;
  /** Every rank's actions in order. */
  readonly ranks: readonly (readonly TimedAction[])[];
  /** Seconds that each rank computes. */
  readonly busy: readonly number[];
  /** The part of all ranks' time in which they wait: what is called the pipeline's bubble. */
  readonly bubble: number;
}

/**
 * Plays a schedule: an action starts when its rank is free and what it waits for has arrived.
 * @throws InternalError where ranks wait for each other for ever.
 */
export function simulateSchedule(table: ScheduleTable, costs: ScheduleCosts): ScheduleTimes {
  const clock = new ScheduleClock(table, costs);
  const next = table.actions.map(() => 0);
  const ranks: TimedAction[][] = table.actions.map(() => []);
  for (let moved = true; moved; ) {
    moved = false;
    table.actions.forEach((list, rank) => {
      for (let action = list[next[rank]!]; action !== undefined; action = list[next[rank]!]) {
        const ready = clock.ready(rank, action);
        if (ready === undefined) return;
        ranks[rank]!.push(clock.run(rank, action, ready));
        next[rank]!++;
        moved = true;
      }
    });
  }
  table.actions.forEach((list, rank) => {
    const stuck = list[next[rank]!];
    if (stuck === undefined) return;
    throw new InternalError("the ranks of a pipeline wait for each other", {
      where: `rank ${rank}, ${stuck.kind} of micro-batch ${stuck.microBatch}, chunk ${stuck.chunk}`,
    });
  });
  const seconds = Math.max(0, ...ranks.map((list) => list.at(-1)?.end ?? 0));
  const busy = ranks.map((list) => list.reduce((sum, { start, end }) => sum + end - start, 0));
  const used = busy.reduce((sum, part) => sum + part, 0);
  return { seconds, ranks, busy, bubble: seconds === 0 ? 0 : 1 - used / (seconds * table.ranks) };
}

/** What ran when, and when something can. */
export class ScheduleClock {
  readonly #table: Pick<ScheduleTable, "ranks" | "chunks">;
  readonly #costs: ScheduleCosts;
  readonly #ends = new Map<string, number>();
  readonly #free: number[];

  constructor(table: Pick<ScheduleTable, "ranks" | "chunks">, costs: ScheduleCosts) {
    this.#table = table;
    this.#costs = costs;
    this.#free = new Array<number>(table.ranks).fill(0);
  }

  /** When a rank has done what it was given. */
  freeAt(rank: number): number {
    return this.#free[rank]!;
  }

  /** When all that an action waits for has arrived; undefined where some of it did not run yet. */
  ready(rank: number, action: Action): number | undefined {
    const stage = stageOf(this.#table, rank, action.chunk);
    let ready = 0;
    for (const source of sourcesOf(action, stage, this.#table.ranks * this.#table.chunks)) {
      const end = this.#ends.get(keyOf(source.kind, source.stage, action.microBatch));
      if (end === undefined) return undefined;
      const away = source.stage === stage ? 0 : (this.#costs.transfer?.(source.stage, stage) ?? 0);
      ready = Math.max(ready, end + away);
    }
    return ready;
  }

  /** Runs an action as soon as its rank is free after `ready`. */
  run(rank: number, action: Action, ready: number): TimedAction {
    const stage = stageOf(this.#table, rank, action.chunk);
    const start = Math.max(ready, this.#free[rank]!);
    const end = start + this.#costs.seconds(action.kind, stage);
    this.#free[rank] = end;
    this.#ends.set(
      keyOf(action.kind === "backward" ? "input_gradient" : action.kind, stage, action.microBatch),
      end,
    );
    return { ...action, start, end };
  }
}

/** The programs of this and of neighbouring stages that must have run. A whole backward counts as its first half. */
function sourcesOf(
  { kind }: Action,
  stage: number,
  stages: number,
): { kind: Exclude<ActionKind, "backward">; stage: number }[] {
  switch (kind) {
    case "forward":
      return stage === 0 ? [] : [{ kind: "forward", stage: stage - 1 }];
    case "weight_gradient":
      return [{ kind: "input_gradient", stage }];
    case "backward":
    case "input_gradient":
      return [
        { kind: "forward", stage },
        ...(stage === stages - 1 ? [] : [{ kind: "input_gradient" as const, stage: stage + 1 }]),
      ];
  }
}

function keyOf(kind: ActionKind, stage: number, microBatch: number): string {
  return `${kind} ${stage} ${microBatch}`;
}
