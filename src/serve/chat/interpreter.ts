import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";
import { RequestError } from "../engine/errors.ts";

/** A template that can be rendered. */
export type Program = ReturnType<typeof parse>;

/** The part of the library's interpreter that is used here. Values of templates are wrapped. */
type TemplateInterpreter = new (
  environment: unknown,
) => {
  evaluate(
    statement: { readonly type: string } | undefined,
    environment: unknown,
  ): { readonly value: unknown };
  run(program: Program): { readonly value: unknown };
};
const LibraryInterpreter: TemplateInterpreter = Interpreter;

/** Evaluations of an expression or statement in one rendering, and characters of what it makes. */
const mostEvaluations = 1_000_000;
/** Evaluations within each other: fewer than the stack holds, which the library would take for a missing variable. */
const deepestEvaluation = 600;
const mostCharacters = 8 << 20;
const mostNumbers = 100_000;

/** What a template asked for by `raise_exception`, as opposed to a fault of it. */
class RaisedByTemplate extends Error {}

/** A template that does not end in reasonable time. */
class TemplateBlowup extends Error {}

/** Evaluates as the library does, and stops where a template runs away. */
class BoundedInterpreter extends LibraryInterpreter {
  #evaluations = 0;
  #depth = 0;
  #characters = 0;

  override evaluate(
    statement: { readonly type: string } | undefined,
    environment: unknown,
  ): { readonly value: unknown } {
    if (++this.#evaluations > mostEvaluations) throw new TemplateBlowup("it takes too many steps");
    if (++this.#depth > deepestEvaluation) throw new TemplateBlowup("it goes too deep");
    let result: { readonly value: unknown };
    try {
      result = super.evaluate(statement, environment);
    } finally {
      this.#depth--;
    }
    // Texts that are joined or repeated grow by what is evaluated here.
    if (typeof result.value === "string" && statement?.type !== "Identifier") {
      this.#characters += result.value.length;
      if (this.#characters > mostCharacters * 16 || result.value.length > mostCharacters) {
        throw new TemplateBlowup("its text grows too long");
      }
    }
    return result;
  }
}

const programs = new Map<string, Program>();
const cachedPrograms = 16;

/**
 * The program of a template; the last ones are kept.
 * @throws RequestError `invalid_request` for a template that is not Jinja
 */
export function compileTemplate(source: string): Program {
  let program = programs.get(source);
  if (program === undefined) {
    try {
      program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
    } catch (error) {
      throw new RequestError("invalid_request", "the chat template is not valid Jinja", {
        parameter: "messages",
        received: messageOf(error),
        hint: "start the server with another one: --chat-template FILE",
        cause: error,
      });
    }
    if (programs.size >= cachedPrograms) programs.clear();
    programs.set(source, program);
  }
  return program;
}

/**
 * The text of a template for `variables`, plain values as JSON has them.
 * @throws RequestError `invalid_request` with what the template raised, or where it fails or does not end
 */
export function runTemplate(
  program: Program,
  variables: Readonly<Record<string, unknown>>,
  now: Date,
): string {
  try {
    const environment = new Environment();
    const globals: Record<string, unknown> = {
      true: true,
      false: false,
      none: null,
      True: true,
      False: false,
      None: null,
      raise_exception: (message: unknown) => {
        throw new RaisedByTemplate(String(message));
      },
      range: boundedRange,
      strftime_now: (format: unknown) => formatTime(now, String(format)),
    };
    for (const [name, value] of Object.entries({ ...variables, ...globals })) environment.set(name, value);
    const result = new BoundedInterpreter(environment).run(program);
    return String(result.value);
  } catch (error) {
    throw refusal(error);
  }
}

function refusal(error: unknown): RequestError {
  const parameter = "messages";
  if (error instanceof RaisedByTemplate) {
    return new RequestError(
      "invalid_request",
      `the chat template refuses the messages: ${messageOf(error)}`,
      {
        parameter,
      },
    );
  }
  if (error instanceof TemplateBlowup || error instanceof RangeError) {
    return new RequestError(
      "invalid_request",
      "the chat template does not come to an end with these messages",
      {
        parameter,
        received: messageOf(error),
      },
    );
  }
  return new RequestError("invalid_request", "the chat template fails with these messages", {
    parameter,
    received: messageOf(error),
    cause: error,
  });
}

function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).slice(0, 300);
}

function boundedRange(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined || second === null ? [0, first] : [first, second];
  if (!(Math.abs(step) > 0)) throw new Error("range() needs a step that is not zero");
  if (Math.abs((stop - start) / step) > mostNumbers) throw new TemplateBlowup("range() is too long");
  const numbers: number[] = [];
  for (let n = start; step > 0 ? n < stop : n > stop; n += step) numbers.push(n);
  return numbers;
}

const months = ["January", "February", "March", "April", "May", "June", "July"].concat([
  ...["August", "September", "October", "November", "December"],
]);
const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/** The time by Python's `strftime`, in English whatever the machine's language, local time. */
export function formatTime(time: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const fields: Readonly<Record<string, () => string>> = {
    Y: () => String(time.getFullYear()),
    y: () => two(time.getFullYear() % 100),
    m: () => two(time.getMonth() + 1),
    d: () => two(time.getDate()),
    b: () => months[time.getMonth()]!.slice(0, 3),
    B: () => months[time.getMonth()]!,
    a: () => days[time.getDay()]!.slice(0, 3),
    A: () => days[time.getDay()]!,
    H: () => two(time.getHours()),
    I: () => two(time.getHours() % 12 || 12),
    p: () => (time.getHours() < 12 ? "AM" : "PM"),
    M: () => two(time.getMinutes()),
    S: () => two(time.getSeconds()),
    "%": () => "%",
  };
  return format.replace(/%([A-Za-z%])/g, (field, letter: string) => fields[letter]?.() ?? field);
}
