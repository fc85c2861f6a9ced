import { CommanderError } from "commander";
import { environmentVariables, readVariable } from "../base/environment.ts";
import { ConfigError, InternalError, SlipstreamError } from "../base/errors.ts";

/** How a command ends that did not succeed: 1 failed while running, 2 wrong usage or config. */
export interface Failure {
  readonly status: 0 | 1 | 2;
  /** For standard error; empty where nothing is left to say. */
  readonly message: string;
}

/** An error of the operating system, such as a file that cannot be opened. */
function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error && "code" in error;
}

function withStack(message: string, error: unknown, internal: boolean): string {
  const debug = readVariable(environmentVariables.debug);
  if (debug !== undefined && debug !== "0") {
    return error instanceof Error && error.stack !== undefined ? error.stack : message;
  }
  const remedy = `  to do:    run again with ${environmentVariables.debug.name}=1 to see where, and report it`;
  return internal ? `${message}\n${remedy}` : message;
}

/**
 * The exit status and message of an error that ended `command`. What a person did wrong is told without a
 * stack trace; faults of Slipstream itself open with `internal:` and say how to see the stack.
 */
export function describeFailure(error: unknown, command = "slipstream"): Failure {
  if (error instanceof CommanderError) {
    // --help and --version end this way too, with everything said.
    if (error.exitCode === 0) return { status: 0, message: "" };
    const message = error.message.replace(/^error: /, "");
    return { status: 2, message: `${command}: ${message}\n  to do:    see \`${command} --help\`` };
  }
  if (error instanceof SlipstreamError) {
    const status = error instanceof ConfigError ? 2 : 1;
    return { status, message: withStack(`${error.message}`, error, error instanceof InternalError) };
  }
  if (isSystemError(error)) {
    return { status: 1, message: withStack(`${command}: ${error.message}`, error, false) };
  }
  const text = error instanceof Error ? error.message : String(error);
  // Native code opens its own faults with the same word.
  const message = text.startsWith("internal: ") ? text : `internal: ${text}`;
  return { status: 1, message: withStack(message, error, true) };
}
