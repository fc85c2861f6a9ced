import { ConfigError } from "../../base/errors.ts";

/** The orders in which a pipeline's ranks run their micro-batches. */
export const pipelineSchedules = ["gpipe", "1f1b", "interleaved", "zero_bubble"] as const;
export type PipelineSchedule = (typeof pipelineSchedules)[number];

/** What a rank does with one micro-batch; `input_gradient` and `weight_gradient` are the halves of `backward`. */
export type ActionKind = "forward" | "backward" | "input_gradient" | "weight_gradient";

/** One run of one of a rank's programs. */
export interface Action {
  readonly kind: ActionKind;
  /** Which of the rank's stages, from 0: stage `chunk * ranks + rank` of the pipeline. */
  readonly chunk: number;
  readonly microBatch: number;
}

/** What every rank does, in order. */
export interface ScheduleTable {
  /** Ranks of the pipeline. */
  readonly ranks: number;
  readonly microBatches: number;
  /** Stages of each rank. */
  readonly chunks: number;
  readonly actions: readonly (readonly Action[])[];
}

/** The stage of the pipeline that a rank's chunk is (Narayanan et al., arXiv 2104.04473, section 2.2). */
export function stageOf(table: Pick<ScheduleTable, "ranks">, rank: number, chunk: number): number {
  return chunk * table.ranks + rank;
}

function forward(microBatch: number, chunk = 0): Action {
  return { kind: "forward", chunk, microBatch };
}

function backward(microBatch: number, chunk = 0): Action {
  return { kind: "backward", chunk, microBatch };
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index);
}

/**
 * All micro-batches forward, then all backward (Huang et al., "GPipe", arXiv 1811.06965). Idle a rank:
 * (p - 1) / (m + p - 1) of the time for p ranks and m micro-batches. With several chunks a rank runs all micro-batches
 * through one after another (Lamy-Poirier, "Breadth-First Pipeline Parallelism", arXiv 2211.05953).
 */
export function gpipe(ranks: number, microBatches: number, chunks = 1): ScheduleTable {
  const batches = upTo(microBatches);
  const actions = upTo(ranks).map(() => [
    ...upTo(chunks).flatMap((chunk) => batches.map((batch) => forward(batch, chunk))),
    ...upTo(chunks).flatMap((chunk) => batches.map((batch) => backward(batch, chunks - 1 - chunk))),
  ]);
  return { ranks, microBatches, chunks, actions };
}

/**
 * One forward, one backward in turns as soon as a rank can: as idle as GPipe, but at most `ranks` micro-batches are
 * held at a time (Narayanan et al., "PipeDream", arXiv 1806.03377, with flushes as in arXiv 2006.09503).
 */
export function oneForwardOneBackward(ranks: number, microBatches: number): ScheduleTable {
  const actions = upTo(ranks).map((rank) => {
    const ahead = Math.min(ranks - 1 - rank, microBatches);
    const list = upTo(ahead).map((batch) => forward(batch));
    for (let batch = 0; batch < microBatches; batch++) {
      if (batch + ahead < microBatches) list.push(forward(batch + ahead));
      list.push(backward(batch));
    }
    return list;
  });
  return { ranks, microBatches, chunks: 1, actions };
}

/**
 * One forward, one backward over several stages a rank: 1/chunks of the idle time, for as many times the messages
 * (Narayanan et al., "Efficient Large-Scale Language Model Training", arXiv 2104.04473, section 2.2).
 * @throws ConfigError where the micro-batches are no multiple of the ranks.
 */
export function interleaved(ranks: number, microBatches: number, chunks: number): ScheduleTable {
  if (microBatches % ranks !== 0) {
    const below = Math.floor(microBatches / ranks) * ranks;
    throw new ConfigError("bad_schedule", "the interleaved schedule deals micro-batches out in rounds", {
      where: "pipeline.schedule",
      expected: `gradient_accumulation_steps that are a multiple of the ${ranks} pipeline ranks`,
      received: String(microBatches),
      hint: `set gradient_accumulation_steps to ${below === 0 ? ranks : `${below} or ${below + ranks}`}, or the schedule to 1f1b`,
    });
  }
  const total = microBatches * chunks;
  const round = ranks * chunks;
  const turn = (index: number): { chunk: number; microBatch: number } => ({
    chunk: Math.floor((index % round) / ranks),
    microBatch: Math.floor(index / round) * ranks + (index % ranks),
  });
  const actions = upTo(ranks).map((rank) => {
    const ahead = Math.min((ranks - rank - 1) * 2 + (chunks - 1) * ranks, total);
    const list: Action[] = [];
    const goForward = (index: number): void => {
      const { chunk, microBatch } = turn(index);
      list.push(forward(microBatch, chunk));
    };
    for (let index = 0; index < ahead; index++) goForward(index);
    for (let index = 0; index < total; index++) {
      if (index + ahead < total) goForward(index + ahead);
      const { chunk, microBatch } = turn(index);
      list.push(backward(microBatch, chunks - 1 - chunk));
    }
    return list;
  });
  return { ranks, microBatches, chunks, actions };
}

/**
 * One forward, one backward with the gradients of parameters put off by as many micro-batches as the rank's number,
 * so that they fill the end of the step: no rank holds more activations than the first does under 1F1B
 * (ZB-H1 of Qi et al., "Zero Bubble Pipeline Parallelism", arXiv 2401.10241).
 */
export function zeroBubble(ranks: number, microBatches: number): ScheduleTable {
  const plain = oneForwardOneBackward(ranks, microBatches);
  const actions = plain.actions.map((list, rank) => {
    const split: Action[] = [];
    for (const action of list) {
      if (action.kind !== "backward") {
        split.push(action);
        continue;
      }
      split.push({ ...action, kind: "input_gradient" });
      if (action.microBatch >= rank)
        split.push({ kind: "weight_gradient", chunk: 0, microBatch: action.microBatch - rank });
    }
    for (let batch = Math.max(0, microBatches - rank); batch < microBatches; batch++)
      split.push({ kind: "weight_gradient", chunk: 0, microBatch: batch });
    return split;
  });
  return { ...plain, actions };
}
