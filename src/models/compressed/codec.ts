/** A matrix [rows, columns] of integers with a scale for each group of each row: w = scale * q. */
export interface IntegerMatrix {
  readonly bits: 4 | 8;
  readonly rows: number;
  readonly columns: number;
  /** Columns that share a scale; it divides `columns`. */
  readonly group: number;
  /** [rows, columns] */
  readonly values: Int8Array;
  /** [rows, columns / group] */
  readonly scales: Float32Array;
}

/** The matrix in floats [rows, columns]. */
export function dequantize({ columns, group, rows, values, scales }: IntegerMatrix): Float32Array {
  const floats = new Float32Array(values.length);
  const groups = columns / group;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const index = row * columns + column;
      floats[index] = values[index]! * scales[row * groups + Math.floor(column / group)]!;
    }
  }
  return floats;
}

/** Quantizes to 8 bits with one scale a row: its largest magnitude becomes 127. */
export function quantizeRows(matrix: Float32Array, rows: number, columns: number): IntegerMatrix {
  const values = new Int8Array(matrix.length);
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    let largest = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++)
      largest = Math.max(largest, Math.abs(matrix[i]!));
    const scale = Math.fround(largest / 127);
    scales[row] = scale;
    if (scale === 0) continue;
    for (let i = row * columns; i < (row + 1) * columns; i++) values[i] = Math.round(matrix[i]! / scale);
  }
  return { bits: 8, rows, columns, group: columns, values, scales };
}

/** Step sizes that are tried for a group, as parts of the one that makes the extreme -8. */
const shrinks = Array.from({ length: 13 }, (_, step) => 0.76 + 0.02 * step);

/**
 * Quantizes to 4 bits in groups: of a few scales the one of least squared error. Scales are numbers that half
 * precision holds, so that every reader computes with the same.
 * @param toHalf rounds a number to half precision
 */
export function quantizeGroups(
  matrix: Float32Array,
  shape: { readonly rows: number; readonly columns: number; readonly group: number },
  toHalf: (value: number) => number,
): IntegerMatrix {
  const { rows, columns, group } = shape;
  const values = new Int8Array(matrix.length);
  const scales = new Float32Array(matrix.length / group);
  const code = (value: number, scale: number): number => Math.max(-8, Math.min(7, Math.round(value / scale)));
  for (let index = 0; index < scales.length; index++) {
    const part = matrix.subarray(index * group, (index + 1) * group);
    const extreme = part.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0);
    let best = { scale: 0, error: Number.POSITIVE_INFINITY };
    for (const shrink of shrinks) {
      const scale = toHalf((extreme / -8) * shrink);
      if (scale === 0) continue;
      const error = part.reduce((sum, value) => sum + (code(value, scale) * scale - value) ** 2, 0);
      if (error < best.error) best = { scale, error };
    }
    scales[index] = best.scale;
    if (best.scale === 0) continue;
    for (let i = 0; i < group; i++) values[index * group + i] = code(part[i]!, best.scale);
  }
  return { bits: 4, rows, columns, group, values, scales };
}

/** 4-bit numbers, eight a word from the lowest bits up, each q + 8. Rows are padded to whole words. */
export function packNibbles({ rows, columns, values }: IntegerMatrix): Int32Array {
  const words = Math.ceil(columns / 8);
  const packed = new Int32Array(rows * words);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      packed[row * words + (column >> 3)]! |= (values[row * columns + column]! + 8) << (4 * (column & 7));
    }
  }
  return packed;
}

/** The numbers of `packNibbles`. */
export function unpackNibbles(packed: Int32Array, rows: number, columns: number): Int8Array {
  const words = Math.ceil(columns / 8);
  const values = new Int8Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      values[row * columns + column] =
        ((packed[row * words + (column >> 3)]! >>> (4 * (column & 7))) & 15) - 8;
    }
  }
  return values;
}
