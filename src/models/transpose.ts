/** A matrix [rows, columns] as [columns, rows], in memory of its own. */
export function transposed(values: Float32Array, [rows, columns]: readonly number[]): Float32Array {
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows!; row++) {
    for (let column = 0; column < columns!; column++) {
      result[column * rows! + row] = values[row * columns! + column]!;
    }
  }
  return result;
}
