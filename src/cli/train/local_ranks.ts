import { availableParallelism } from "node:os";
import { createLocalWorld, createNativeBackend } from "../../backends.ts";
import { environmentVariables, readInteger } from "../../base/environment.ts";
import type { Trace } from "../../runtime/trace.ts";
import type { RankLauncher } from "../../train/run_ranks.ts";

/**
 * Ranks as tasks of this process, which share its cores: each has a backend with threads of its own.
 * @param trace records rank 0
 */
export function localRanks(count: number, trace?: Trace): RankLauncher {
  return {
    count,
    lead: true,
    sharesProcess: true,
    canRestart: true,
    start: async (size, options) => {
      const cores = readInteger(environmentVariables.threads, 1, 256) ?? availableParallelism();
      const threads = Math.max(1, Math.floor(cores / size));
      return createLocalWorld(size, options).map((world, rank) => {
        const backend = createNativeBackend({
          threads,
          isolated: true,
          ...(trace === undefined || rank > 0 ? {} : { trace }),
        });
        const close = (): void => {
          world.close();
          backend.dispose();
        };
        return { world, backend, close };
      });
    },
  };
}
