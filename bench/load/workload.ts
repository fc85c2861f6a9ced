/** What a load generator sends: when, how long a prompt, and how long an answer. */
import { readFile } from "node:fs/promises";
import { FileFormatError } from "../../src/base/errors.ts";
import { RandomStream } from "./random_stream.ts";

/** Tokens of one request. */
export interface Lengths {
  readonly prompt: number;
  readonly output: number;
}

/** One request of a load. */
export interface PlannedRequest {
  /** Seconds after the start. It is sent then, whether or not others are answered (open loop). */
  readonly arrival: number;
  readonly prompt: readonly number[];
  readonly output: number;
}

/** How a load is made. */
export interface WorkloadOptions {
  /** Lengths, used in turn. */
  readonly lengths: readonly Lengths[];
  readonly requests: number;
  /** Requests a second; Infinity: all at once. */
  readonly rate: number;
  readonly seed: number;
  /** Prompts are ids from `firstToken` to `vocabulary` - 1. */
  readonly vocabulary: number;
  readonly firstToken?: number;
}

/**
 * Recorded lengths: one JSON object `{"prompt": tokens, "output": tokens}` a line.
 * @throws FileFormatError naming the line that is something else.
 */
export async function readLengths(file: string): Promise<Lengths[]> {
  const lines = (await readFile(file, "utf8")).split("\n").filter((line) => line.trim() !== "");
  const lengths = lines.map((line, index): Lengths => {
    const where = `${file}:${index + 1}`;
    const expected = '{"prompt": 123, "output": 45}, both at least 1';
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (cause) {
      throw new FileFormatError("bad_lengths", "a line of recorded lengths is not JSON", {
        where,
        expected,
        cause,
      });
    }
    const { prompt, output } = (value ?? {}) as Partial<Record<"prompt" | "output", unknown>>;
    if (!isLength(prompt) || !isLength(output)) {
      throw new FileFormatError("bad_lengths", "a line of recorded lengths has no lengths", {
        where,
        expected,
        received: line.slice(0, 200),
      });
    }
    return { prompt, output };
  });
  if (lengths.length > 0) return lengths;
  throw new FileFormatError("bad_lengths", "there are no recorded lengths", { where: file });
}

function isLength(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1;
}

/** A load: gaps between arrivals are exponential (a Poisson process), the same for a seed. */
export function planWorkload(options: WorkloadOptions): PlannedRequest[] {
  const { lengths, requests, rate, seed, vocabulary, firstToken = 0 } = options;
  const random = new RandomStream(seed);
  let arrival = 0;
  return Array.from({ length: requests }, (_, index) => {
    const { prompt, output } = lengths[index % lengths.length]!;
    arrival += rate === Infinity ? 0 : -Math.log(1 - random.next()) / rate;
    const ids = Array.from(
      { length: prompt },
      () => firstToken + Math.floor(random.next() * (vocabulary - firstToken)),
    );
    return { arrival, prompt: ids, output };
  });
}

/** Lengths drawn evenly between bounds, both among them. */
export function evenLengths(
  count: number,
  prompt: readonly [number, number],
  output: readonly [number, number],
  seed: number,
): Lengths[] {
  const random = new RandomStream(seed);
  const draw = ([low, high]: readonly [number, number]): number =>
    low + Math.floor(random.next() * (high - low + 1));
  return Array.from({ length: count }, () => ({ prompt: draw(prompt), output: draw(output) }));
}
