import { statSync } from "node:fs";
import { dirname } from "node:path";
import { type Backend, createNativeBackend, createReferenceBackend } from "../backends.ts";
import { ConfigError } from "../base/errors.ts";
import { Trace } from "../runtime/trace.ts";

/** Backends that commands can run programs on. */
export const backendNames = ["native", "reference"] as const;

/** How a command asks for its backend. */
export interface BackendOptions {
  readonly backend: (typeof backendNames)[number];
  /** Where to write a timeline, if anywhere. */
  readonly trace?: string;
}

/** The trace for `--trace FILE`, refused now where FILE could not be written in the end. */
function openTrace(file: string): Trace {
  const folder = dirname(file);
  if (statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new ConfigError("bad_trace_file", "the timeline cannot be written there", {
      where: `--trace ${file}`,
      expected: `an existing folder; there is none at ${folder}`,
    });
  }
  return new Trace();
}

/**
 * Runs `work` on the backend that the options ask for, and writes the timeline afterwards: of a run that
 * failed too.
 * @param work is given the timeline too, to add what it does itself
 * @throws ConfigError for a timeline that cannot be written or that the backend does not record.
 */
export async function withBackend<T>(
  options: BackendOptions,
  work: (backend: Backend, trace?: Trace) => Promise<T>,
): Promise<T> {
  const { backend, trace: file } = options;
  if (backend === "reference") {
    if (file === undefined) return await work(createReferenceBackend());
    throw new ConfigError("no_trace", "the reference backend records no timeline", {
      hint: "leave out --trace or --backend reference",
    });
  }
  if (file === undefined) return await work(createNativeBackend());
  const trace = openTrace(file);
  try {
    return await work(createNativeBackend({ trace }), trace);
  } finally {
    trace.write(file);
  }
}
