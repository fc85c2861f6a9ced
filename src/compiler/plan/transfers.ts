/** A step of the unplanned program that reads or writes an object. */
export interface Touch {
  readonly step: number;
  readonly reads: boolean;
  readonly writes: boolean;
}

/** Something that is in memory only around the steps that touch it, and in a store otherwise. */
export interface MovedObject {
  readonly bytes: number;
  /** In the order of steps, at most one a step. */
  readonly touches: readonly Touch[];
  /** Whether the store holds it before the program, and must hold what was written after it. */
  readonly persists: boolean;
}

/** A stretch of steps during which an object is in memory. */
export interface Stay {
  readonly object: number;
  /** The steps that touch it first and last. */
  readonly from: number;
  readonly to: number;
  readonly loads: boolean;
  readonly saves: boolean;
  /** Places in `TransferPlan.sequence` between which its memory is taken, both ends included. */
  first: number;
  last: number;
}

/** A step of the program that moves a stay's contents, or waits until they have moved. */
export interface TransferAction {
  readonly action: "load" | "save" | "load_wait" | "save_wait";
  readonly stay: Stay;
  /** The number of the stay: what pairs a start with its wait. */
  readonly number: number;
}

/** Steps by their number, and what happens between them. */
export interface TransferPlan {
  readonly stays: readonly Stay[];
  readonly sequence: readonly (number | TransferAction)[];
}

/** How much memory a plan of transfers may take for its own sake. */
export interface TransferSettings {
  /** Bytes that may be read ahead of their use. */
  readonly window: number;
  /** Bytes that may be not yet written; as many by default. */
  readonly writeWindow?: number;
  /** An object stays in memory between two touches this many steps apart or fewer. */
  readonly gap: number;
}

/**
 * Decides when each object is read and written. The order of reads is that of the program, so nothing is guessed:
 * every read is started as early as the window allows and waited for where it is first needed; what was written to
 * is saved after its last touch, and its memory is free when that is done (Rajbhandari et al., "ZeRO-Infinity",
 * arXiv 2104.07857). Keeping what is needed again soonest is Belady's choice of what to evict.
 */
export function planTransfers(
  objects: readonly MovedObject[],
  steps: number,
  { window, writeWindow = window, gap }: TransferSettings,
): TransferPlan {
  const stays = objects.flatMap((object, index) => staysOf(object, index, gap));
  stays.sort((a, b) => a.from - b.from || a.object - b.object);
  const bytesOf = (stay: Stay): number => objects[stay.object]!.bytes;
  const previous = new Map<Stay, Stay>();
  const latest = new Map<number, Stay>();
  for (const stay of stays) {
    const before = latest.get(stay.object);
    if (before !== undefined) previous.set(stay, before);
    latest.set(stay.object, stay);
  }
  const startsAt = chooseStarts(stays, previous, window, bytesOf);

  const sequence: (number | TransferAction)[] = [];
  const unwritten: number[] = [];
  let unwrittenBytes = 0;
  const act = (action: TransferAction["action"], number: number): void => {
    const stay = stays[number]!;
    const place = sequence.push({ action, stay, number }) - 1;
    if (action === "load") stay.first = place;
    if (action === "save_wait") stay.last = place;
  };
  const awaitWrite = (position: number): void => {
    const [number] = unwritten.splice(position, 1) as [number];
    unwrittenBytes -= bytesOf(stays[number]!);
    act("save_wait", number);
  };
  const byStart = groupBy(stays, (stay) => startsAt.get(stay));
  const byFirst = groupBy(stays, (stay) => stay.from);
  const byLast = groupBy(stays, (stay) => stay.to);
  for (let step = 0; step < steps; step++) {
    for (const number of byStart.get(step) ?? []) {
      // What is read must have been written.
      const before = previous.get(stays[number]!);
      const position = unwritten.findIndex((candidate) => stays[candidate] === before);
      if (position >= 0) awaitWrite(position);
      act("load", number);
    }
    for (const number of byFirst.get(step) ?? []) {
      if (stays[number]!.loads) act("load_wait", number);
      else stays[number]!.first = sequence.length;
    }
    sequence.push(step);
    for (const number of byLast.get(step) ?? []) {
      const stay = stays[number]!;
      if (!stay.saves) {
        stay.last = sequence.length - 1;
        continue;
      }
      while (unwritten.length > 0 && unwrittenBytes + bytesOf(stay) > writeWindow) awaitWrite(0);
      act("save", number);
      unwritten.push(number);
      unwrittenBytes += bytesOf(stay);
      if (writeWindow === 0) awaitWrite(0);
    }
  }
  while (unwritten.length > 0) awaitWrite(0);
  return { stays, sequence };
}

/** Cuts the touches of an object where it may leave memory in between. */
function staysOf(object: MovedObject, index: number, gap: number): Stay[] {
  const runs: Touch[][] = [];
  for (const touch of object.touches) {
    const run = runs.at(-1);
    if (run !== undefined && touch.step - run.at(-1)!.step <= gap) run.push(touch);
    else runs.push([touch]);
  }
  return runs.map((run, position): Stay => {
    // What is overwritten whole before anything reads it need not be kept.
    const next = runs[position + 1];
    const needed = next === undefined ? object.persists : next[0]!.reads;
    return {
      object: index,
      from: run[0]!.step,
      to: run.at(-1)!.step,
      loads: run[0]!.reads,
      saves: needed && run.some(({ writes }) => writes),
      first: 0,
      last: 0,
    };
  });
}

/** The step before which the read of each stay is started: one by one in the order in which they are needed. */
function chooseStarts(
  stays: readonly Stay[],
  previous: ReadonlyMap<Stay, Stay>,
  window: number,
  bytesOf: (stay: Stay) => number,
): Map<Stay, number> {
  const starts = new Map<Stay, number>();
  const ahead: Stay[] = [];
  let bytes = 0;
  let step = 0;
  for (const stay of stays) {
    if (!stay.loads) continue;
    // Everything that was started and is not yet needed counts; the oldest is needed first.
    while (ahead.length > 0 && bytes + bytesOf(stay) > window && step < stay.from) {
      step = Math.max(step, Math.min(ahead[0]!.from + 1, stay.from));
      while (ahead.length > 0 && ahead[0]!.from < step) bytes -= bytesOf(ahead.shift()!);
    }
    if (bytesOf(stay) > window) step = stay.from;
    const before = previous.get(stay);
    const earliest = before === undefined ? 0 : before.to + 1;
    step = Math.min(Math.max(step, earliest), stay.from);
    while (ahead.length > 0 && ahead[0]!.from < step) bytes -= bytesOf(ahead.shift()!);
    starts.set(stay, step);
    ahead.push(stay);
    bytes += bytesOf(stay);
  }
  return starts;
}

function groupBy(stays: readonly Stay[], keyOf: (stay: Stay) => number | undefined): Map<number, number[]> {
  const groups = new Map<number, number[]>();
  stays.forEach((stay, number) => {
    const key = keyOf(stay);
    if (key === undefined) return;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [number]);
    else group.push(number);
  });
  return groups;
}
