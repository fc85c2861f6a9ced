import { bytesPerElement } from "../../../base/dtype.ts";
import { elementCount } from "../../../base/shape.ts";
import type { ConcreteType, Cost } from "../cost.ts";

/** Elements of a type. */
export function elements(type: ConcreteType | undefined): number {
  return type === undefined ? 0 : elementCount(type.shape);
}

/** Bytes of types together. */
export function totalBytes(...types: readonly ConcreteType[]): number {
  return types.reduce((sum, type) => sum + elementCount(type.shape) * bytesPerElement(type.dtype), 0);
}

/** The cost of an op that does `flops` operations and moves each operand and result once. */
export function moving(
  inputs: readonly ConcreteType[],
  outputs: readonly ConcreteType[],
  flops: number,
): Cost {
  return { flops, bytes: totalBytes(...inputs, ...outputs) };
}

/** A rule for ops that do `perElement` operations an element of their first operand. */
export function perInputElement(perElement: number) {
  return (inputs: readonly ConcreteType[], outputs: readonly ConcreteType[]): Cost =>
    moving(inputs, outputs, perElement * elements(inputs[0]));
}
