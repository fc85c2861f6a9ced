import type { Box } from "../base/pieces.ts";
import { elementCount, stridesOf } from "../base/shape.ts";
import type { ProcessGroup } from "../runtime/group.ts";

/**
 * Puts elements [start, end) of the flattened box into the whole parameter, or takes them from there: calls `move`
 * with the position in the whole, that in the piece, and a number of elements, for every run that is contiguous in
 * both.
 */
export function forEachRun(
  shape: readonly number[],
  { starts, sizes }: Box,
  { start, end }: { readonly start: number; readonly end: number },
  move: (inWhole: number, inPiece: number, length: number) => void,
): void {
  if (shape.length === 0) {
    if (end > start) move(0, 0, end - start);
    return;
  }
  const strides = stridesOf(shape);
  const boxStrides = stridesOf(sizes);
  // Axes from `inner` on are whole: one row of the box along the axis before is contiguous.
  let inner = shape.length - 1;
  while (inner > 0 && sizes[inner] === shape[inner]) inner--;
  const row = boxStrides[inner]! * sizes[inner]!;
  for (let position = start; position < end; ) {
    const length = Math.min(row - (position % row), end - position);
    let rest = position;
    let inWhole = 0;
    for (let axis = 0; axis < shape.length; axis++) {
      const index = Math.floor(rest / boxStrides[axis]!);
      rest -= index * boxStrides[axis]!;
      inWhole += (starts[axis]! + index) * strides[axis]!;
    }
    move(inWhole, position - start, length);
    position += length;
  }
}

/** What a rank adds to a parameter that all put together. */
export interface Contribution {
  readonly box: Box;
  readonly start: number;
  readonly values: Float32Array;
}

/**
 * A whole parameter from the pieces that the ranks of a world keep of it. A collective.
 * @param own undefined where this rank has nothing that others lack
 */
export async function assembleParameter(
  world: ProcessGroup,
  shape: readonly number[],
  own: Contribution | undefined,
): Promise<Float32Array> {
  const header = own === undefined ? [] : [own.start, ...own.box.starts, ...own.box.sizes];
  const numbers = Float64Array.from(header);
  const values = own?.values ?? new Float32Array(0);
  const bytes = new Uint8Array(numbers.byteLength + values.byteLength);
  bytes.set(new Uint8Array(numbers.buffer));
  bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), numbers.byteLength);
  const whole = new Float32Array(elementCount(shape));
  for (const received of await world.exchange(bytes)) {
    if (received.length === 0) continue;
    const copy = received.slice().buffer;
    const [start, ...corner] = new Float64Array(copy, 0, 1 + 2 * shape.length);
    const piece = new Float32Array(copy, 8 * (1 + 2 * shape.length));
    const box = { starts: corner.slice(0, shape.length), sizes: corner.slice(shape.length) };
    const range = { start: start!, end: start! + piece.length };
    forEachRun(shape, box, range, (inWhole, inPiece, length) => {
      whole.set(piece.subarray(inPiece, inPiece + length), inWhole);
    });
  }
  return whole;
}
