/**
 * Llama's GGUF files keep the rows of query and key projections for a rotation of neighbours, (2 i, 2 i + 1)
 * within a head; Hugging Face's turn (i, i + d / 2). Rows are moved whole, whatever the type of their elements.
 */

/** Brings rows from the order of a Llama's GGUF file into Hugging Face's: `to` must not be `from`. */
export function halvesFromPairs(from: Uint8Array, to: Uint8Array, rows: number, heads: number): void {
  eachRow(from, rows, heads, (halves, pairs, bytes) => to.set(from.subarray(pairs, pairs + bytes), halves));
}

/** Brings rows from Hugging Face's order into that of a Llama's GGUF file: `to` must not be `from`. */
export function pairsFromHalves(from: Uint8Array, to: Uint8Array, rows: number, heads: number): void {
  eachRow(from, rows, heads, (halves, pairs, bytes) => to.set(from.subarray(halves, halves + bytes), pairs));
}

/** Calls `move` with where each row begins in either order, in bytes. */
function eachRow(
  matrix: Uint8Array,
  rows: number,
  heads: number,
  move: (halves: number, pairs: number, rowBytes: number) => void,
): void {
  const rowBytes = matrix.length / rows;
  const headRows = rows / heads;
  for (let row = 0; row < rows; row++) {
    const inHead = row % headRows;
    const half = inHead < headRows / 2 ? 0 : 1;
    const pair = 2 * (inHead - (half * headRows) / 2) + half;
    move(row * rowBytes, (row - inHead + pair) * rowBytes, rowBytes);
  }
}
