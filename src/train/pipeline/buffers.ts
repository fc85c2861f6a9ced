import type { TensorType } from "../../graph/graph.ts";
import type { PipelineStage } from "../../parallel/pipeline/cut.ts";
import type { Action } from "../../parallel/pipeline/schedules.ts";

/** Memory that a rank holds between its programs: how many buffers of a type, all alike. */
export interface BufferPool {
  readonly type: TensorType;
  readonly count: number;
}

/** Which buffer each value of an action's micro-batch lies in. */
export interface BufferPlan {
  /** By chunk, then by the name of the stage value. */
  readonly pools: readonly ReadonlyMap<string, BufferPool>[];
  /** Sets of memory for the leaves of a batch, by chunk. */
  readonly batches: readonly number[];
  /** The buffer of a stage value of a micro-batch, within its pool. */
  bufferOf(chunk: number, microBatch: number, value: string): number;
  /** The set of memory that holds a micro-batch's leaves. */
  batchOf(chunk: number, microBatch: number): number;
}

/** The places in a rank's list at which a micro-batch's programs run. */
interface Places {
  forward: number;
  backward: number;
  weightGradient: number;
}

/**
 * Gives every value of every micro-batch a buffer for the time that it is needed: from when it is made, or from the
 * start of the action before the one that waits for it, to its last reader; what is sent is kept for one action
 * more, while it leaves. As many buffers as are needed at once, known before anything runs.
 * @param stages this rank's stages, by chunk.
 */
export function planBuffers(actions: readonly Action[], stages: readonly PipelineStage[]): BufferPlan {
  const places = placesOf(actions);
  const assigned = new Map<string, number>();
  const assign = (chunk: number, value: string, span: (at: Places) => readonly [number, number]): number => {
    const lives = [...places]
      .filter(([key]) => key.startsWith(`${chunk} `))
      .map(([key, at]) => ({ key, span: span(at) }))
      .sort((a, b) => a.span[0] - b.span[0]);
    const busyUntil: number[] = [];
    for (const {
      key,
      span: [first, last],
    } of lives) {
      const free = busyUntil.findIndex((until) => until < first);
      const buffer = free < 0 ? busyUntil.length : free;
      busyUntil[buffer] = last;
      assigned.set(`${key} ${value}`, buffer);
    }
    return busyUntil.length;
  };
  const pools = stages.map((stage, chunk) => {
    const leaves = new Set([...stage.toNext, ...stage.toPrevious]);
    return new Map(
      stage.values.map(({ name, type, born, dies }): [string, BufferPool] => {
        const count = assign(chunk, name, (at) => {
          const first = {
            from_previous: at.forward - 1,
            forward: at.forward,
            from_next: at.backward - 1,
            backward: at.backward,
          }[born];
          const last = { forward: at.forward, backward: at.backward, weight_gradient: at.weightGradient }[
            dies
          ];
          return [first, leaves.has(name) ? last + 1 : last];
        });
        return [name, { type, count }];
      }),
    );
  });
  const batches = stages.map((_, chunk) =>
    assign(chunk, "batch", (at) => [at.forward, Math.max(at.forward, at.backward, at.weightGradient)]),
  );
  const bufferOf = (chunk: number, microBatch: number, value: string): number =>
    assigned.get(`${chunk} ${microBatch} ${value}`)!;
  return { pools, batches, bufferOf, batchOf: (chunk, microBatch) => bufferOf(chunk, microBatch, "batch") };
}

function placesOf(actions: readonly Action[]): Map<string, Places> {
  const places = new Map<string, Places>();
  actions.forEach(({ kind, chunk, microBatch }, index) => {
    const key = `${chunk} ${microBatch}`;
    const at = places.get(key) ?? { forward: -1, backward: -1, weightGradient: -1 };
    places.set(key, at);
    if (kind === "forward") at.forward = index;
    if (kind === "backward" || kind === "input_gradient") at.backward = index;
    if (kind === "backward" || kind === "weight_gradient") at.weightGradient = index;
  });
  return places;
}
