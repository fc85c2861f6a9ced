/** A box of a tensor: the part of a parameter that a rank computes with under tensor parallelism. */
export interface Box {
  readonly starts: readonly number[];
  readonly sizes: readonly number[];
}

/** Elements [start, end) of the flattened box of a parameter: what a rank keeps of it under ZeRO. */
export interface TensorPiece {
  /** The full name of the parameter, as in a Hugging Face checkpoint. */
  readonly name: string;
  /** The shape of the whole parameter. */
  readonly shape: readonly number[];
  readonly box: Box;
  readonly start: number;
  readonly end: number;
}

/** A piece of a parameter or of one of its optimizer states, wherever it lies: in memory or in a file. */
export interface StatePiece extends TensorPiece {
  /** "parameters", or the name of an optimizer's state such as "first_moment". */
  readonly kind: string;
  /** The elements where they lie in memory, in a piece that does: what only reads them needs no copy. */
  readonly resident?: Float32Array;
  /** Copies elements from `offset` (counted from `start`) on into memory. */
  read(offset: number, into: Float32Array): Promise<void>;
  /** Copies memory over elements from `offset` (counted from `start`) on. */
  write(offset: number, from: Float32Array): Promise<void>;
}

/** A piece that is a whole tensor in memory, or a part of one: `values` holds its elements. */
export function pieceInMemory(
  kind: string,
  { name, shape, box, start, end }: TensorPiece,
  values: Float32Array,
): StatePiece {
  return {
    ...{ kind, name, shape, box, start, end },
    resident: values,
    read: async (offset, into) => into.set(values.subarray(offset, offset + into.length)),
    write: async (offset, from) => values.set(from, offset),
  };
}
