import { decode } from "../../../base/dtype.ts";
import { InternalError } from "../../../base/errors.ts";
import { PhiloxStream } from "../../../base/random.ts";
import { elementCount, stridesOf } from "../../../base/shape.ts";
import type { ReferenceRule } from "../reference.ts";
import { truncateToIntegers } from "./common.ts";

/** Meaning of the ops that start programs. */
export const sourceReferences: {
  readonly [Op in "leaf" | "constant" | "fill" | "iota" | "random"]: ReferenceRule<Op>;
} = {
  leaf: (_inputs, { name }) => {
    throw new InternalError(`the value of leaf "${name}" comes from the caller, not from a rule`);
  },
  constant: (_inputs, { data, dtype }) => [decode(dtype, data)],
  fill: (_inputs, { value, dtype }, [shape]) => {
    const values = new Float64Array(elementCount(shape!)).fill(value);
    return [truncateToIntegers(values, dtype)];
  },
  iota: (_inputs, { axis }, [shape]) => {
    const values = new Float64Array(elementCount(shape!));
    const stride = stridesOf(shape!)[axis]!;
    const size = shape![axis]!;
    for (let i = 0; i < values.length; i++) values[i] = Math.floor(i / stride) % size;
    return [values];
  },
  // Element i is number i of the stream whose key is (seed, step).
  random: ([seed], { distribution, stream }, [shape]) => {
    const low = seed!.values[0]! >>> 0;
    const high = seed!.values[1]! >>> 0;
    const source = new PhiloxStream(low + high * 2 ** 32, stream);
    const values = new Float64Array(elementCount(shape!));
    for (let i = 0; i < values.length; i++) {
      values[i] = distribution === "uniform" ? source.nextFloat() : source.nextNormal();
    }
    return [values];
  },
};
