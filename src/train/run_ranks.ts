import { setTimeout as sleep } from "node:timers/promises";
import { CommunicationError, InternalError, RunError, SlipstreamError } from "../base/errors.ts";
import type { MeshAxis } from "../parallel/mesh.ts";
import type { Backend } from "../runtime/backend.ts";
import type { EmulatedLink, GroupOptions, ProcessGroup } from "../runtime/group.ts";

/** What a rank of this process is given to run with. */
export interface RankResources {
  readonly world: ProcessGroup;
  /** A backend of the rank's own: programs of several ranks run side by side. */
  readonly backend: Backend;
  /** Leaves the world and lets go of the backend's threads. */
  close(): void;
}

/** How the ranks of a world talk. */
export interface WorldOptions extends GroupOptions {
  /** Links to pretend to have, by the axis of the mesh. */
  readonly links: Readonly<Partial<Record<MeshAxis, EmulatedLink>>>;
}

/** Starts the ranks of a run: as tasks of this process, or as what a launcher such as mpirun started. */
export interface RankLauncher {
  /** Ranks of the run, over all processes. */
  readonly count: number;
  /** Whether rank 0 is in this process: it alone prints and writes. */
  readonly lead: boolean;
  /** Whether all ranks are in this process. */
  readonly sharesProcess: boolean;
  /** Whether `start` may be called again, with another count, after a failure. */
  readonly canRestart: boolean;
  /** The ranks of this process. */
  start(count: number, options: WorldOptions): Promise<readonly RankResources[]>;
}

/** A rank's task, and what it says of itself when it fails. */
export interface RankTask<T> {
  readonly world: ProcessGroup;
  run(): Promise<T>;
  /** What the rank is at, such as "step 12". */
  moment(): string;
}

interface Failure {
  readonly rank: number;
  readonly moment: string;
  readonly error: unknown;
}

/** Seconds that ranks have to notice that another one failed. */
const secondsToEnd = 5;

/**
 * Runs the tasks of this process's ranks to their ends. Where one fails, the world is aborted, so that all end.
 * @throws the failure that came first, not those that followed from it; of a rank other than 0, with the rank
 * and what it was at.
 */
export async function runRanks<T>(tasks: readonly RankTask<T>[]): Promise<T[]> {
  const failures: Failure[] = [];
  const failed = new AbortController();
  const results = tasks.map(async (task) => {
    try {
      return await task.run();
    } catch (error) {
      const failure = { rank: task.world.rank, moment: task.moment(), error };
      failures.push(failure);
      task.world.abort(describe(failure));
      failed.abort();
      throw error;
    }
  });
  const settled = Promise.allSettled(results);
  // A rank that stalls outside of collectives would never notice.
  await Promise.race([settled, once(failed.signal).then(() => Promise.race([settled, graceTime()]))]);
  if (failures.length > 0) throw asError(original(failures));
  return await Promise.all(results);
}

async function once(signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

async function graceTime(): Promise<void> {
  await sleep(secondsToEnd * 1000, undefined, { ref: false });
}

/** The failure that the others followed from. */
function original(failures: readonly Failure[]): Failure {
  const causes = failures.filter(
    ({ error }) => !(error instanceof CommunicationError && error.code === "rank_lost"),
  );
  // What all ranks found out alike is told by the first of them.
  const found = causes.length === 0 ? failures : causes;
  return found.reduce((first, failure) => (failure.rank < first.rank ? failure : first));
}

function describe({ rank, moment, error }: Failure): string {
  const summary = (error instanceof Error ? error.message : String(error)).split("\n", 1)[0];
  return `rank ${rank} failed${moment === "" ? "" : ` at ${moment}`}: ${summary}`;
}

function asError(failure: Failure): unknown {
  const { rank, moment, error } = failure;
  // Errors of communication name rank and step themselves, and what rank 0 says needs no name.
  if (rank === 0 || error instanceof CommunicationError) return error;
  const where = `rank ${rank}${moment === "" ? "" : `, ${moment}`}: `;
  if (error instanceof SlipstreamError)
    return new RunError(error.code, where + error.message, { cause: error });
  return new InternalError(where + (error instanceof Error ? error.message : String(error)), {
    cause: error,
  });
}
