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
const shrinks = [0.8, 0.84, 0.88, 0.92, 0.96, 1];

/** The 4-bit number nearest to `value` in steps of 1 / `inverse`. */
function code(value: number, inverse: number): number {
  const q = Math.floor(value * inverse + 0.5);
  return Math.max(-8, Math.min(7, q));
}

/** The sum of squared errors of elements [start, end) rounded to multiples of `scale`. */
function squaredError(matrix: Float32Array, start: number, end: number, scale: number): number {
  const inverse = 1 / scale;
  let sum = 0;
  for (let i = start; i < end; i++) {
    const value = matrix[i]!;
    const difference = code(value, inverse) * scale - value;
    sum += difference * difference;
  }
  return sum;
}

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
  for (let index = 0; index < scales.length; index++) {
    const start = index * group;
    const end = start + group;
    let extreme = 0;
    for (let i = start; i < end; i++) {
      if (Math.abs(matrix[i]!) > Math.abs(extreme)) extreme = matrix[i]!;
    }
    let best = 0;
    let least = Number.POSITIVE_INFINITY;
    for (const shrink of shrinks) {
      const scale = toHalf((extreme / -8) * shrink);
      if (scale === 0) continue;
      const error = squaredError(matrix, start, end, scale);
      if (error < least) {
        least = error;
        best = scale;
      }
    }
    scales[index] = best;
    if (best === 0) continue;
    for (let i = start; i < end; i++) values[i] = code(matrix[i]!, 1 / best);
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
