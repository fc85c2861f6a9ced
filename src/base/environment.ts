import { ConfigError } from "./errors.ts";

/** One environment variable that Slipstream reads: its meaning, for `doctor`, the docs and errors. */
export interface EnvironmentVariable {
  readonly name: string;
  readonly meaning: string;
  readonly values: string;
  /** Whether its value must never be shown. */
  readonly secret?: boolean;
}

/** Every environment variable that Slipstream reads. Nothing else reads `process.env`. */
export const environmentVariables = {
  threads: {
    name: "SLIPSTREAM_THREADS",
    meaning: "threads that run kernels (default: the machine's cores)",
    values: "an integer from 1 to 256",
  },
  isa: {
    name: "SLIPSTREAM_ISA",
    meaning: "the highest instruction set that kernels may use",
    values: "scalar, avx2, avx512, avx512bf16, amx or neon",
  },
  debug: {
    name: "SLIPSTREAM_DEBUG",
    meaning: "what to print to standard error: 1 timings, 2 programs too, 3 graphs after each pass too",
    values: "0, 1, 2 or 3",
  },
  compiler: {
    name: "SLIPSTREAM_CXX",
    meaning: "the C++ compiler that builds the native code (default: g++, then clang++)",
    values: "a command",
  },
  mpiCompiler: {
    name: "SLIPSTREAM_MPICXX",
    meaning: "the C++ compiler wrapper of the MPI that the MPI addon is built for (default: mpicxx)",
    values: "a command",
  },
  apiKey: {
    name: "SLIPSTREAM_API_KEY",
    meaning: "keys of which clients of `slipstream serve` must send one",
    values: "a key, or several separated by commas",
    secret: true,
  },
  serveForcePreemption: {
    name: "SLIPSTREAM_SERVE_FORCE_PREEMPTION",
    meaning: "for tests of serving: every so many steps a running sequence loses its cache",
    values: "an integer of at least 1",
  },
  serveStepDelay: {
    name: "SLIPSTREAM_SERVE_STEP_DELAY",
    meaning: "for tests of serving: milliseconds by which every step is slowed down",
    values: "an integer from 1 to 60000",
  },
  serveFailStep: {
    name: "SLIPSTREAM_SERVE_FAIL_STEP",
    meaning: "for tests of serving: every so many steps the forward pass throws",
    values: "an integer of at least 1",
  },
  serveCheck: {
    name: "SLIPSTREAM_SERVE_CHECK",
    meaning: "for tests of serving: 1 recounts every block of the cache after each step",
    values: "0 or 1",
  },
  terminal: {
    name: "TERM",
    meaning: "the kind of terminal; `dumb` shows training as plain lines",
    values: "set by the terminal itself",
  },
} as const satisfies Record<string, EnvironmentVariable>;

/** The environment as launchers of ranks (mpirun, srun) set it: their names are theirs, and not ours to list. */
export function launcherEnvironment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}

/** The value of a variable, or undefined where it is unset or empty. */
export function readVariable(variable: EnvironmentVariable): string | undefined {
  const value = process.env[variable.name];
  return value === undefined || value === "" ? undefined : value;
}

/** An integer variable within a range; throws ConfigError with the legal values otherwise. */
export function readInteger(variable: EnvironmentVariable, low: number, high: number): number | undefined {
  const text = readVariable(variable);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new ConfigError("bad_environment", `${variable.name} has a value that cannot be used`, {
      expected: variable.values,
      received: JSON.stringify(text),
    });
  }
  return value;
}

/** The debug level, 0 to 3. */
export function debugLevel(): number {
  return readInteger(environmentVariables.debug, 0, 3) ?? 0;
}
