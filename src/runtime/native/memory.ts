import { constants } from "node:buffer";
import { formatBytes } from "../../base/bytes.ts";
import { RunError } from "../../base/errors.ts";

/** JavaScript's limit on one buffer. */
const largestBuffer = constants.MAX_LENGTH;

/** What a person is told where the system does not give memory. @param what is to live there */
export function outOfMemory(what: string, bytes?: number, cause?: unknown): RunError {
  const size = bytes === undefined ? "" : `${formatBytes(bytes)} for `;
  return new RunError("out_of_memory", "the system does not give as much memory as is needed", {
    received: `${size}${what}`,
    hint: "use a smaller model, batch or sequence, or a machine with more memory",
    ...(cause === undefined ? {} : { cause }),
  });
}

/**
 * Does what asks native code for memory.
 * @throws RunError `out_of_memory` where the system refuses; what `ask` throws otherwise.
 */
export function askForMemory<Result>(what: string, bytes: number, ask: () => Result): Result {
  if (bytes > largestBuffer) throw outOfMemory(what, bytes);
  try {
    return ask();
  } catch (error) {
    if (isRefusal(error)) throw outOfMemory(what, bytes, error);
    throw error;
  }
}

/** Whether an error says that there is no memory: C++'s `std::bad_alloc`, or JavaScript's limit. */
export function isRefusal(error: unknown): boolean {
  if (error instanceof RangeError) return true;
  return error instanceof Error && error.message.includes("bad_alloc");
}
