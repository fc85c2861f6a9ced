/** What an error tells its reader: what was expected, what came, where, and what to do about it. */
export interface ErrorDetails {
  /** What would have been right. */
  readonly expected?: string;
  /** What came instead. */
  readonly received?: string;
  /** Config path with line, op name, tensor name or file. */
  readonly where?: string;
  /** The next thing to do. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/**
 * The base of every error that a user can cause. `code` is stable and may be relied on by programs;
 * the message is for people. Commands print the message without a stack trace.
 */
export class SlipstreamError extends Error {
  readonly code: string;
  readonly details: ErrorDetails;

  constructor(code: string, summary: string, details: ErrorDetails = {}) {
    super(
      composeMessage(summary, details),
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.name = new.target.name;
    this.code = code;
    this.details = details;
  }
}

/** A wrong key, value or combination in a config or on the command line (exit status 2). */
export class ConfigError extends SlipstreamError {}

/** Tensors whose shapes or dtypes do not fit an op. */
export class ShapeError extends SlipstreamError {}

/** A file that is missing, truncated, corrupt, or that does not hold what it should. */
export class FileFormatError extends SlipstreamError {}

/** Training or evaluation data that cannot be used. */
export class DataError extends SlipstreamError {}

/** A failure while a program runs: a loss that is not finite, a full disk, a missing compiler. */
export class RunError extends SlipstreamError {}

/**
 * Ranks that cannot go on together: one died, stalled, or called another collective than its peers. Every rank of
 * the group ends with it.
 */
export class CommunicationError extends SlipstreamError {}

/** A fault of Slipstream itself: an invariant that does not hold. Its message opens with `internal:`. */
export class InternalError extends SlipstreamError {
  constructor(summary: string, details: ErrorDetails = {}) {
    super("internal", `internal: ${summary}`, details);
  }
}

function composeMessage(summary: string, details: ErrorDetails): string {
  const lines = [summary];
  if (details.where !== undefined) lines.push(`  where:    ${details.where}`);
  if (details.expected !== undefined) lines.push(`  expected: ${details.expected}`);
  if (details.received !== undefined) lines.push(`  received: ${details.received}`);
  if (details.hint !== undefined) lines.push(`  to do:    ${details.hint}`);
  return lines.join("\n");
}
