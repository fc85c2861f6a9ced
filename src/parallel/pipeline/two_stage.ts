import type { Action, ScheduleTable } from "./schedules.ts";
import { ScheduleClock } from "./simulate.ts";

/**
 * A schedule with backward cut in two (Rae et al., "2BP: 2-Stage Backpropagation", arXiv 2405.18047): the ranks pass
 * on gradients of activations as soon as they have them, and compute those of parameters while they would wait, or
 * at the end. Those of a chunk are added up in the order of the micro-batches, as without the cut. Where forward
 * and the halves of backward take as long as each other, GPipe waits for 2(p-1) / (2(p-1) + 3m) of the time and 1F1B
 * for (p-1) / (p-1 + 3m).
 *
 * Time decides where a rank would wait: that of a stage's forward and of both halves of its backward, all alike.
 */
export function withTwoStageBackward(table: ScheduleTable): ScheduleTable {
  const clock = new ScheduleClock(table, { seconds: () => 1 });
  const lists = table.actions.map((list) => list.map(firstHalf));
  const next = lists.map(() => 0);
  const actions: Action[][] = lists.map(() => []);
  const put = lists.map((): Action[] => []);
  const take = (rank: number, action: Action, ready: number): void => {
    actions[rank]!.push(action);
    clock.run(rank, action, ready);
    if (action.kind === "input_gradient") put[rank]!.push({ ...action, kind: "weight_gradient" });
  };
  for (;;) {
    // Always the action that can start first, so that a rank's gap is known when it comes to it.
    let best: { rank: number; start: number; ready: number } | undefined;
    lists.forEach((list, rank) => {
      const action = list[next[rank]!];
      const ready = action === undefined ? undefined : clock.ready(rank, action);
      if (ready === undefined) return;
      const start = Math.max(ready, clock.freeAt(rank));
      if (best === undefined || start < best.start) best = { rank, start, ready };
    });
    if (best === undefined) break;
    const { rank, start, ready } = best as { rank: number; start: number; ready: number };
    while (put[rank]!.length > 0 && clock.freeAt(rank) + 1 <= start) take(rank, put[rank]!.shift()!, 0);
    take(rank, lists[rank]![next[rank]!]!, ready);
    next[rank]!++;
  }
  put.forEach((rest, rank) => {
    actions[rank]!.push(...rest);
  });
  return { ...table, actions };
}

function firstHalf(action: Action): Action {
  return action.kind === "backward" ? { ...action, kind: "input_gradient" } : action;
}
