import { insertByRight, type Sequence } from "./sequence.ts";

/**
 * What became of the attempt to start a waiting sequence. `deferred`: it waits for something that must not hold up
 * those behind it. `refused`: there is no room, and none for those behind it either, lest the large wait for ever.
 */
export type Attempt = "started" | "deferred" | "refused";

interface Tenant {
  readonly name: string;
  /** First come, first served. */
  readonly queue: Sequence[];
  /** Those before it were deferred in this round. */
  scanned: number;
}

interface Level {
  readonly priority: number;
  /** Sequences that ran before and lost their blocks: they have had their turn, and go first. */
  readonly resumed: Sequence[];
  /** Tenants that have something waiting, the next one first. */
  readonly tenants: Tenant[];
}

/** Sequences that wait to run: by priority; within one, tenants take turns; within a tenant, in order of arrival. */
export class WaitingQueue {
  /** Smallest priority first; none is empty. */
  readonly #levels: Level[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** A new sequence, behind those of its tenant. */
  add(sequence: Sequence): void {
    const { tenants } = this.#level(sequence.request.priority);
    const name = sequence.request.tenant;
    const tenant = tenants.find((other) => other.name === name);
    if (tenant === undefined) tenants.push({ name, queue: [sequence], scanned: 0 });
    else tenant.queue.push(sequence);
    this.#size++;
  }

  /** A sequence that ran already, before all that did not. */
  putBack(sequence: Sequence): void {
    insertByRight(this.#level(sequence.request.priority).resumed, sequence);
    this.#size++;
  }

  remove(sequence: Sequence): void {
    const level = this.#level(sequence.request.priority);
    const resumed = level.resumed.indexOf(sequence);
    if (resumed >= 0) {
      level.resumed.splice(resumed, 1);
    } else {
      const index = level.tenants.findIndex((tenant) => tenant.name === sequence.request.tenant);
      const { queue } = level.tenants[index]!;
      queue.splice(queue.indexOf(sequence), 1);
      if (queue.length === 0) level.tenants.splice(index, 1);
    }
    this.#size--;
    this.#drop(level);
  }

  /** Offers the sequences in their order to `start`, until it refuses one. Those that it starts leave the queue. */
  startEach(start: (sequence: Sequence) => Attempt): void {
    for (const level of [...this.#levels]) {
      const refused = this.#startResumed(level, start) || this.#startTurns(level, start);
      this.#drop(level);
      if (refused) return;
    }
  }

  *[Symbol.iterator](): Generator<Sequence> {
    for (const level of this.#levels) {
      yield* level.resumed;
      for (const tenant of level.tenants) yield* tenant.queue;
    }
  }

  #startResumed(level: Level, start: (sequence: Sequence) => Attempt): boolean {
    for (let index = 0; index < level.resumed.length; ) {
      const attempt = start(level.resumed[index]!);
      if (attempt === "refused") return true;
      if (attempt === "deferred") {
        index++;
        continue;
      }
      level.resumed.splice(index, 1);
      this.#size--;
    }
    return false;
  }

  #startTurns(level: Level, start: (sequence: Sequence) => Attempt): boolean {
    const { tenants } = level;
    for (const tenant of tenants) tenant.scanned = 0;
    for (let index = 0; index < tenants.length; ) {
      const tenant = tenants[index]!;
      if (tenant.scanned === tenant.queue.length) {
        index++;
        continue;
      }
      const attempt = start(tenant.queue[tenant.scanned]!);
      if (attempt === "refused") return true;
      if (attempt === "deferred") {
        tenant.scanned++;
        continue;
      }
      tenant.queue.splice(tenant.scanned, 1);
      this.#size--;
      // It had its turn.
      tenants.splice(index, 1);
      if (tenant.queue.length > 0) tenants.push(tenant);
    }
    return false;
  }

  #level(priority: number): Level {
    let index = this.#levels.findIndex((level) => level.priority >= priority);
    if (index < 0) index = this.#levels.length;
    const found = this.#levels[index];
    if (found?.priority === priority) return found;
    const level: Level = { priority, resumed: [], tenants: [] };
    this.#levels.splice(index, 0, level);
    return level;
  }

  #drop(level: Level): void {
    if (level.resumed.length > 0 || level.tenants.length > 0) return;
    this.#levels.splice(this.#levels.indexOf(level), 1);
  }
}
