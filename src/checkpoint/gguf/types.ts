/**
 * The numbers of the GGUF format (github.com/ggml-org/ggml, docs/gguf.md): types of tensors and of metadata.
 */

/** How a type stores a row: blocks of `elements` in `bytes`; floats are blocks of one. */
export interface TensorType {
  readonly id: number;
  readonly elements: number;
  readonly bytes: number;
}

/** The types of tensors that Slipstream reads. */
export const tensorTypes = {
  F32: { id: 0, elements: 1, bytes: 4 },
  F16: { id: 1, elements: 1, bytes: 2 },
  BF16: { id: 30, elements: 1, bytes: 2 },
  Q8_0: { id: 8, elements: 32, bytes: 34 },
  Q4_0: { id: 2, elements: 32, bytes: 18 },
  Q4_K: { id: 12, elements: 256, bytes: 144 },
  Q5_K: { id: 13, elements: 256, bytes: 176 },
  Q6_K: { id: 14, elements: 256, bytes: 210 },
} as const satisfies Record<string, TensorType>;

/** A type of tensors as people write it: `Q8_0`. */
export type TensorTypeName = keyof typeof tensorTypes;

/** The types whose elements come in blocks with scales of their own. */
export type BlockTypeName = Exclude<TensorTypeName, "F32" | "F16" | "BF16">;

/** True of types whose elements come in blocks with scales. */
export function isBlockType(type: TensorTypeName): type is BlockTypeName {
  return tensorTypes[type].elements > 1;
}

/** Bytes of `elements` of a type; whole blocks. */
export function tensorBytes(type: TensorTypeName, elements: number): number {
  return (elements / tensorTypes[type].elements) * tensorTypes[type].bytes;
}

/** Types that other programs write and Slipstream does not read: named, so that errors can say which. */
const otherTypeNames: Readonly<Record<number, string>> = {
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  24: "I8",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

const namesById: ReadonlyMap<number, TensorTypeName> = new Map(
  Object.entries(tensorTypes).map(([name, { id }]) => [id, name as TensorTypeName]),
);

/** The readable type with a number; undefined where Slipstream does not read it. */
export function tensorTypeOf(id: number): TensorTypeName | undefined {
  return namesById.get(id);
}

/** What a type number means, readable or not: `IQ2_XS (17)`. */
export function describeType(id: number): string {
  const name = namesById.get(id) ?? otherTypeNames[id];
  return name === undefined ? `an unknown type (${id})` : `${name} (${id})`;
}

/** The types of metadata values, by their numbers in the file. */
export const valueTypes = [
  "uint8",
  "int8",
  "uint16",
  "int16",
  "uint32",
  "int32",
  "float32",
  "bool",
  "string",
  "array",
  "uint64",
  "int64",
  "float64",
] as const;

/** A type of metadata values. */
export type ValueType = (typeof valueTypes)[number];

/** A type of metadata values that holds one number. */
export type NumberType = Exclude<ValueType, "bool" | "string" | "array">;

/** Bytes of one number of a type. */
export const numberBytes: Readonly<Record<NumberType, number>> = {
  uint8: 1,
  int8: 1,
  uint16: 2,
  int16: 2,
  uint32: 4,
  int32: 4,
  float32: 4,
  uint64: 8,
  int64: 8,
  float64: 8,
};

/**
 * A metadata value. 64-bit integers are numbers where they are exact, otherwise bigints; arrays of numbers are
 * plain or typed arrays.
 */
export type MetadataValue =
  | number
  | bigint
  | boolean
  | string
  | readonly MetadataValue[]
  | Float32Array
  | Int32Array;

/** What a file starts with: "GGUF", read as a little-endian number. */
export const magic = 0x46554747;

/** Where tensors begin is a multiple of this, unless `general.alignment` says otherwise. */
export const defaultAlignment = 32;
