import type { TensorType } from "../../graph.ts";
import type { Label, OpSharding } from "../sharding.ts";

/** A label of its own for each dimension: d0, d1, … from `first` on. */
export function labelsOf(type: TensorType | undefined, first = 0): Label[] {
  return (type?.shape ?? []).map((_, axis) => `d${first + axis}`);
}

/** The labels of all dimensions but the last, which stays whole. */
export function leadingLabels(type: TensorType | undefined): Label[] {
  return labelsOf(type).with(-1, null);
}

/** No dimension of these may be cut. */
export function wholes(types: readonly TensorType[]): Label[][] {
  return types.map(({ shape }) => shape.map(() => null));
}

/** An op that needs all of everything on every rank. */
export function whole(inputs: readonly TensorType[], outputs: readonly TensorType[]): OpSharding {
  return { inputs: wholes(inputs), outputs: wholes(outputs), linear: [] };
}
