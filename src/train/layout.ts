import type { TensorData } from "../base/dtype.ts";
import { ConfigError } from "../base/errors.ts";
import { elementCount } from "../base/shape.ts";
import type { ParameterTable } from "../nn/parameters.ts";

/** Parameters that are updated alike: a stretch of the flat buffers. */
export interface ParameterGroup {
  readonly name: "decay" | "no_decay";
  readonly decay: boolean;
  /** First element in the flat buffers, and how many. */
  readonly start: number;
  readonly length: number;
}

/** Where every parameter lies in the flat float32 buffers. */
export interface ParameterLayout {
  /** Elements of the trained parameters, padding included. */
  readonly trained: number;
  /** Elements of all parameters: the frozen ones come last. */
  readonly total: number;
  readonly groups: readonly ParameterGroup[];
  /** First element of each parameter. */
  readonly starts: ReadonlyMap<string, number>;
  readonly frozen: ReadonlySet<string>;
}

/** Parameters start on whole cache lines. */
const alignment = 16;

/**
 * Lays parameters out one after another: those with weight decay, those without, the frozen ones. An
 * optimizer then updates a group in one sweep.
 * @throws ConfigError where nothing is left to train.
 */
export function layOutParameters(
  parameters: ParameterTable,
  decays: (name: string) => boolean,
  isFrozen: (name: string) => boolean,
): ParameterLayout {
  const names = [...parameters.keys()];
  const frozen = new Set(names.filter(isFrozen));
  const starts = new Map<string, number>();
  let next = 0;
  const place = (members: readonly string[]): void => {
    for (const name of members) {
      starts.set(name, next);
      next += Math.ceil(elementCount(parameters.get(name)!.shape) / alignment) * alignment;
    }
  };
  const groups: ParameterGroup[] = [];
  for (const decay of [true, false]) {
    const start = next;
    place(names.filter((name) => !frozen.has(name) && decays(name) === decay));
    if (next > start) groups.push({ name: decay ? "decay" : "no_decay", decay, start, length: next - start });
  }
  const trained = next;
  if (trained === 0) {
    throw new ConfigError("nothing_to_train", "every parameter of the model is frozen", {
      where: "frozen_parameters",
      hint: "leave at least one parameter out of the patterns",
    });
  }
  place([...frozen]);
  return { trained, total: next, groups, starts, frozen };
}

/** The part of a flat buffer that belongs to one parameter. */
export function viewOfParameter(
  buffer: Float32Array,
  layout: ParameterLayout,
  parameters: ParameterTable,
  name: string,
): Float32Array {
  const start = layout.starts.get(name)!;
  return buffer.subarray(start, start + elementCount(parameters.get(name)!.shape));
}

/** Bytes of all buffers given. */
export function totalBytes(buffers: Iterable<TensorData>): number {
  let bytes = 0;
  for (const buffer of buffers) bytes += buffer.byteLength;
  return bytes;
}
