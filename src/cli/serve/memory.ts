import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Keeps JavaScript's heap as small while serving as it needs to be. By default V8 lets the room for short-lived objects
 * double whenever it is busy, and takes the garbage of loading for a sign that much more may follow: the process would
 * grow for thousands of requests before it stops. Call it before a model is loaded.
 * @returns what to call when the model is there: collects what loading left, and bounds growth from that size
 */
export function boundHeap(): () => void {
  setFlagsFromString("--semi-space-growth-factor=1");
  return () => {
    // Old objects may grow by so many per cent before they are collected, mostly beside the program.
    setFlagsFromString("--heap-growing-percent=5");
    // The heap is small: moving what lives together costs little, and leaves no holes to grow around.
    setFlagsFromString("--compact-on-every-full-gc");
    setFlagsFromString("--expose-gc");
    (runInNewContext("gc") as () => void)();
    setFlagsFromString("--no-expose-gc");
  };
}
