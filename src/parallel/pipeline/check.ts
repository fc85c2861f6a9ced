import { InternalError } from "../../base/errors.ts";
import { type Action, type ScheduleTable, stageOf } from "./schedules.ts";
import { simulateSchedule } from "./simulate.ts";

/** What a rank holds at the most at a time, counted in micro-batches of a chunk. */
export interface ScheduleMemory {
  /** Between forward and the last of backward: their activations. */
  readonly activations: number;
  /** Between the halves of a backward that is cut in two. */
  readonly halfway: number;
}

/**
 * Checks a schedule: every rank runs forward and backward of every micro-batch of every chunk once, a whole backward
 * or its halves; no rank waits for ever; what two neighbours exchange is asked for in the order in which it is sent,
 * and the gradients of a chunk's parameters are added in the order of the micro-batches.
 * @returns what each rank holds.
 * @throws InternalError naming the rank and what is wrong there.
 */
export function checkSchedule(table: ScheduleTable): ScheduleMemory[] {
  table.actions.forEach((list, rank) => {
    requireComplete(table, list, rank);
  });
  simulateSchedule(table, { seconds: () => 1 });
  requireOrder(table);
  return table.actions.map(memoryOf);
}

function requireComplete(
  { chunks, microBatches }: ScheduleTable,
  list: readonly Action[],
  rank: number,
): void {
  const seen = new Set<string>();
  const last = new Map<number, number>();
  for (const { kind, chunk, microBatch } of list) {
    const key = `${kind} ${chunk} ${microBatch}`;
    const fits = chunk >= 0 && chunk < chunks && microBatch >= 0 && microBatch < microBatches;
    if (!fits || seen.has(key))
      fail(
        rank,
        `it runs ${kind} of chunk ${chunk}, micro-batch ${microBatch}, ${fits ? "twice" : "which there is not"}`,
      );
    seen.add(key);
    if (kind !== "backward" && kind !== "weight_gradient") continue;
    if (microBatch !== (last.get(chunk) ?? -1) + 1)
      fail(rank, `gradients of chunk ${chunk} are not added in order`);
    last.set(chunk, microBatch);
  }
  for (let chunk = 0; chunk < chunks; chunk++) {
    for (let batch = 0; batch < microBatches; batch++) {
      const has = (kind: string): boolean => seen.has(`${kind} ${chunk} ${batch}`);
      const halves = has("input_gradient") && has("weight_gradient");
      const any = has("input_gradient") || has("weight_gradient");
      if (!has("forward") || (has("backward") ? any : !halves))
        fail(rank, `micro-batch ${batch} of chunk ${chunk} is not run once forward and once backward`);
    }
  }
}

/** Messages of one direction between two ranks arrive in the order in which they were sent. */
function requireOrder(table: ScheduleTable): void {
  const stages = table.ranks * table.chunks;
  const messages = (rank: number, forward: boolean, step: number): string[] =>
    table.actions[rank]!.flatMap(({ kind, chunk, microBatch }) => {
      if (kind === "weight_gradient" || (kind === "forward") !== forward) return [];
      const stage = stageOf(table, rank, chunk);
      const other = stage + step;
      return other < 0 || other >= stages ? [] : [`${Math.min(stage, other)} ${microBatch}`];
    });
  for (let rank = 0; rank < table.ranks; rank++) {
    const next = (rank + 1) % table.ranks;
    const upward = messages(rank, true, 1).join() === messages(next, true, -1).join();
    const downward = messages(next, false, -1).join() === messages(rank, false, 1).join();
    if (!upward || !downward)
      fail(next, `it exchanges messages with rank ${rank} in another order than that one`);
  }
}

function memoryOf(list: readonly Action[]): ScheduleMemory {
  let [held, halfway] = [0, 0];
  const most = { activations: 0, halfway: 0 };
  for (const { kind } of list) {
    if (kind === "forward") held++;
    if (kind === "input_gradient") halfway++;
    most.activations = Math.max(most.activations, held);
    most.halfway = Math.max(most.halfway, halfway);
    if (kind === "backward" || kind === "weight_gradient") held--;
    if (kind === "weight_gradient") halfway--;
  }
  return most;
}

function fail(rank: number, problem: string): never {
  throw new InternalError(`a pipeline's schedule is wrong: rank ${rank}: ${problem}`);
}
