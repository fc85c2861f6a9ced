import { MemoryLimitError } from "../../compiler/plan/tiers.ts";
import type { Optimizer } from "../../optim/optimizer.ts";
import type { StoreTraffic } from "../../runtime/store.ts";
import { sumOverRanks } from "../agreement.ts";
import { type ParameterLayout, type PlacedParameter, type Sweep, sweepOf, sweepsOf } from "../layout.ts";
import type { MicroBatchRunner } from "../micro_batches.ts";
import type { Rank } from "../rank.ts";
import type { ReadySubGroup } from "./interleave.ts";
import { chooseInterleaving } from "./interleaving.ts";
import type { OffloadSettings } from "./settings.ts";
import type { States } from "./states.ts";

/** Whether sub-groups are updated during backward: those that a cost model picks, all that can be, or none. */
export type InterleaveSetting = "auto" | "always" | "never";

/** What an interleaver works on. */
export interface InterleaverContext {
  readonly setting: InterleaveSetting;
  readonly runner: MicroBatchRunner;
  readonly layout: ParameterLayout;
  readonly optimizer: Optimizer;
  readonly states: States;
  readonly rank: Rank | undefined;
  /** Elements that one collective gathers. */
  readonly bucket: number;
  /** Whether every micro-batch but the last is run by a program of its own. */
  readonly accumulates: boolean;
  readonly offload: OffloadSettings | undefined;
}

/** What one step's micro-batches took. */
export interface MicroBatchMeasure {
  readonly seconds: number;
  readonly count: number;
  /** What the disk had moved before and after. */
  readonly before: StoreTraffic;
  readonly after: StoreTraffic;
}

/** Decides once which sub-groups the last micro-batch of a step updates, and has its program made. */
export class Interleaver {
  readonly #context: InterleaverContext;
  readonly #subGroups: readonly Sweep[];
  #chosen: ReadonlySet<string> = new Set();
  #decided: boolean;

  /** With "always" decides at once. */
  constructor(context: InterleaverContext) {
    this.#context = context;
    const { setting, layout, states, offload, runner, accumulates } = context;
    this.#subGroups =
      runner.interleave === undefined || setting === "never"
        ? []
        : [...layout.parameters.values()].flatMap((placed) => this.#subGroupOf(placed));
    // A second program packs weights again, for which a limit has left no room.
    const hasRoom = offload?.arenaLimit === undefined || offload.parameters || !accumulates;
    const mayGain = setting === "auto" && states.store !== undefined && hasRoom;
    this.#decided = this.#subGroups.length === 0 || !mayGain;
    if (setting === "always" && this.#subGroups.length > 0) this.#interleave((ready) => namesOf(ready));
  }

  /** Whether the choice waits for a measurement. */
  get undecided(): boolean {
    return !this.#decided;
  }

  /** The parameters that the last micro-batch updates. */
  get chosen(): ReadonlySet<string> {
    return this.#chosen;
  }

  /** What is updated after the last micro-batch. */
  get remainingSweeps(): readonly Sweep[] {
    const { layout, offload } = this.#context;
    if (this.#chosen.size === 0) return layout.sweeps;
    const others = [...layout.parameters.values()].filter(({ local }) => !this.#chosen.has(local.name));
    return sweepsOf(others, offload?.subGroup ?? Number.POSITIVE_INFINITY);
  }

  /** Decides by what a step took. A collective: all ranks decide alike. */
  async decide({ seconds, count, before, after }: MicroBatchMeasure): Promise<void> {
    this.#decided = true;
    const { rank } = this.#context;
    const rate = (bytes: number, busySeconds: number): number => (busySeconds > 0 ? bytes / busySeconds : 0);
    const measured = [
      seconds / count,
      rate(after.readBytes, after.readSeconds),
      rate(after.writtenBytes, after.writeSeconds),
      (after.readSeconds - before.readSeconds) / seconds,
      (after.writeSeconds - before.writeSeconds) / seconds,
    ];
    const sums = await sumOverRanks(
      rank,
      measured.map((value) => ({ value, counts: true })),
    );
    const means = sums.map((sum) => sum / (rank?.world.size ?? 1));
    const [microBatchSeconds, read, write, reading, writing] = means as [
      number,
      number,
      number,
      number,
      number,
    ];
    const sweeps = new Map(this.#subGroups.map((sweep) => [sweep.name, sweep]));
    try {
      this.#interleave((ready) =>
        chooseInterleaving({
          microBatchSeconds,
          reading: { bandwidth: read, busy: reading },
          writing: { bandwidth: write, busy: writing },
          subGroups: ready.map((group) => ({ ...group, ...this.#moved(sweeps.get(group.name)!) })),
        }),
      );
    } catch (error) {
      // The plan without interleaving keeps the limit.
      if (!(error instanceof MemoryLimitError)) throw error;
      this.#chosen = new Set();
    }
  }

  #interleave(choose: (ready: readonly ReadySubGroup[]) => ReadonlySet<string>): void {
    const { runner, optimizer, bucket, states } = this.#context;
    let chosen: ReadonlySet<string> | undefined;
    const updates = {
      ...{ subGroups: this.#subGroups, optimizer, bucket, halves: states.keepsHalves },
      // A budget for recomputation plans several programs: all make the same updates.
      choose: (ready: readonly ReadySubGroup[]) => (chosen ??= choose(ready)),
    };
    runner.interleave!(updates);
    this.#chosen = chosen ?? new Set();
  }

  /** A parameter as a sub-group; nothing where its update cannot share a program with forward and backward. */
  #subGroupOf(placed: PlacedParameter): Sweep[] {
    const { states, offload } = this.#context;
    const sweep = sweepOf(placed);
    if (sweep === undefined || sweep.length > (offload?.subGroup ?? sweep.length)) return [];
    // What moves between disk and memory moves as a whole: one stretch under two names, not two that overlap.
    const whole = (share: PlacedParameter["parameter"]): boolean =>
      sweep.length === (share === "part" ? placed.part : placed.elements);
    if (states.isOnDisk("gradients") && !whole(placed.gradient)) return [];
    if (!states.isOnDisk("parameters")) return [sweep];
    return whole(placed.parameter) && sweep.publishes === undefined ? [sweep] : [];
  }

  /** Bytes that an update moves beside what the program moves anyway. */
  #moved({ length }: Sweep): { readBytes: number; writeBytes: number } {
    const { states, optimizer } = this.#context;
    const kinds = ["parameters", ...optimizer.states].filter((kind) => states.isOnDisk(kind));
    const bytes = kinds.length * length * 4;
    return { readBytes: bytes, writeBytes: bytes + (states.keepsHalves ? length * 2 : 0) };
  }
}

function namesOf(ready: readonly ReadySubGroup[]): ReadonlySet<string> {
  return new Set(ready.map(({ name }) => name));
}
