import { RequestError } from "../engine/errors.ts";

/** What is wrong with a schema or a pattern, before it is known which parameter of the request held it. */
export class GrammarProblem extends Error {
  /** Path in the schema (`$.properties.x`), or the place in a pattern. */
  readonly where: string | undefined;
  readonly expected: string | undefined;
  readonly received: string | undefined;
  readonly hint: string | undefined;

  constructor(
    summary: string,
    details: { where?: string; expected?: string; received?: string; hint?: string } = {},
  ) {
    super(summary);
    this.name = "GrammarProblem";
    this.where = details.where;
    this.expected = details.expected;
    this.received = details.received;
    this.hint = details.hint;
  }

  /** The same problem, at a place. A place that is known already stays. */
  at(where: string): GrammarProblem {
    if (this.where !== undefined) return this;
    return new GrammarProblem(this.message, {
      where,
      ...(this.expected === undefined ? {} : { expected: this.expected }),
      ...(this.received === undefined ? {} : { received: this.received }),
      ...(this.hint === undefined ? {} : { hint: this.hint }),
    });
  }
}

/** At most `length` characters of a text that a client sent, for messages. */
export function excerpt(text: string, length = 80): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

/** Runs `build`; a GrammarProblem becomes a RequestError of `parameter`, and so does a stack that ran out. */
export function refusingProblems<T>(parameter: string, build: () => T): T {
  try {
    return build();
  } catch (error) {
    if (error instanceof GrammarProblem) {
      throw new RequestError("invalid_request", excerpt(error.message, 300), {
        parameter,
        ...(error.where === undefined ? {} : { where: excerpt(error.where, 200) }),
        ...(error.expected === undefined ? {} : { expected: excerpt(error.expected, 200) }),
        ...(error.received === undefined ? {} : { received: excerpt(error.received, 200) }),
        ...(error.hint === undefined ? {} : { hint: excerpt(error.hint, 200) }),
      });
    }
    if (error instanceof RangeError && /call stack/i.test(error.message)) {
      throw new RequestError("invalid_request", "the schema or pattern is nested too deeply", { parameter });
    }
    throw error;
  }
}
