import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import type { Backend, Executable } from "../../src/runtime/backend.ts";

/** The last of a wait is spent looking at the clock: timers are late by about a millisecond. */
const watched = 0.0012;

/** Returns at a moment of `performance.now() / 1000`, as near as the event loop allows. */
async function waitUntil(moment: number): Promise<void> {
  const rest = moment - performance.now() / 1000 - watched;
  if (rest > 0) await sleep(rest * 1000);
  while (performance.now() / 1000 < moment) await turn();
}

/**
 * A backend whose programs take as long as they are said to and compute nothing: as many ranks as one likes run side by
 * side on a machine of two cores, each as if it had processors of its own.
 * @param secondsOf of one run of the program of this name
 */
export function playedBackend(backend: Backend, secondsOf: (program: string) => number): Backend {
  return {
    name: backend.name,
    allocate: (dtype, elements) => backend.allocate(dtype, elements),
    compile: (graph): Executable => {
      const seconds = secondsOf(graph.name);
      // A rank is busy until its program returns: that the clock was looked at late is no wait for another rank.
      const run = async () => {
        const started = performance.now() / 1000;
        await waitUntil(started + seconds);
        const taken = performance.now() / 1000 - started;
        return { seconds: taken, kernelSeconds: taken };
      };
      return {
        memory: { arena: 0, prepared: 0, constants: 0, bound: 0, scratch: 0 },
        flops: 0,
        run,
        bind: () => ({ run }),
        invalidateParameters: () => {},
        dispose: () => {},
      };
    },
  };
}
