import { z } from "zod";
import { parseBytes } from "../../../base/bytes.ts";

/** An integer of at least `low`. */
export function integer(low: number) {
  return z.int().min(low);
}

/** A count of things or steps: an integer of at least 1. */
export function count() {
  return integer(1);
}

/** A number of at least `low`. */
export function atLeast(low: number) {
  return z.number().min(low);
}

/** A number from 0 to 1, both included. */
export function ratio() {
  return z.number().min(0).max(1);
}

/** A decay factor of a running average: from 0 to just under 1. */
export function decayFactor() {
  return z.number().min(0).lt(1);
}

/** Text that is not empty: a path, a field name. */
export function text() {
  return z.string().min(1);
}

/** A feature of DeepSpeed that may be spelled out as off, and cannot be on yet. */
export function off() {
  return z.literal(false).optional();
}

/** A size in bytes, as a number or with a unit. */
export function byteSize() {
  return z
    .union([z.number(), z.string()])
    .transform((size, context) => {
      try {
        return parseBytes(size);
      } catch {
        context.issues.push({ code: "custom", input: size, message: "not a size in bytes" });
        return z.NEVER;
      }
    })
    .meta({ typeText: "bytes, such as 512MiB, 4GiB or 1048576" });
}
