import { availableParallelism, cpus } from "node:os";
import { createMpiWorld, createNativeBackend, launchedRanks } from "../../backends.ts";
import { environmentVariables, readInteger } from "../../base/environment.ts";
import { ConfigError, InternalError } from "../../base/errors.ts";
import type { Trace } from "../../runtime/trace.ts";
import type { RankLauncher } from "../../train/run_ranks.ts";

/** The launcher's ranks where mpirun or Slurm started this process as one of several. */
export interface MpiRanks {
  readonly count: number;
  /** Whether this process is rank 0, which alone prints and writes. */
  readonly lead: boolean;
  /** @param trace of this rank */
  launcher(trace?: Trace): RankLauncher;
}

/**
 * The ranks that mpirun or Slurm started, if either did.
 * @param asked what `--ranks` says; it is for ranks of one process
 * @throws ConfigError where it says something else than the launcher
 */
export function mpiRanks(asked: number): MpiRanks | undefined {
  const launched = launchedRanks();
  if (launched === undefined || launched.size === 1) return undefined;
  const { rank, size, onThisMachine } = launched;
  if (asked !== 1 && asked !== size) {
    throw new ConfigError("ranks", "--ranks is for ranks of one process, and this is one of several", {
      where: `--ranks ${asked}`,
      expected: `no --ranks: the launcher started ${size} ranks`,
    });
  }
  const lead = rank === 0;
  const launcher = (trace?: Trace): RankLauncher => ({
    count: size,
    lead,
    sharesProcess: false,
    canRestart: false,
    start: async (_count, { timeoutSeconds, links }) => {
      const [axis] = Object.keys(links);
      if (axis !== undefined) {
        throw new ConfigError("links", "links are pretended between ranks of one process only", {
          where: `comm.links.${axis}`,
          hint: "leave it out under mpirun, or train with --ranks",
        });
      }
      const world = createMpiWorld({ timeoutSeconds });
      if (world === undefined) throw new InternalError("a launched rank has no world");
      // Launchers may bind a process to some of the cores, or let all of a machine share them.
      const share = Math.max(1, Math.floor(cpus().length / onThisMachine));
      const threads =
        readInteger(environmentVariables.threads, 1, 256) ?? Math.min(availableParallelism(), share);
      const backend = createNativeBackend({ threads, ...(trace === undefined ? {} : { trace }) });
      return [
        {
          world,
          backend,
          close: () => {
            world.close();
            backend.dispose();
          },
        },
      ];
    },
  });
  return { count: size, lead, launcher };
}
