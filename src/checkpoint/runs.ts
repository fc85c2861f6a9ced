import type { Box, TensorPiece } from "../base/pieces.ts";
import { elementCount, stridesOf } from "../base/shape.ts";

/** A run of elements that lie together both in the whole tensor and in a piece of it. */
export interface Run {
  /** First element in the whole tensor, flattened. */
  readonly whole: number;
  /** First element in the piece. */
  readonly piece: number;
  readonly length: number;
}

/** A run that two pieces share. */
export interface SharedRun {
  /** First element in the piece that is read. */
  readonly from: number;
  /** First element in the piece that is filled. */
  readonly to: number;
  readonly length: number;
}

/** The box of a whole tensor. */
export function wholeBox(shape: readonly number[]): Box {
  return { starts: shape.map(() => 0), sizes: shape };
}

/**
 * The runs of a piece in the order of the whole tensor: boxes are row-major, so this is also their order in the
 * piece. Trailing axes that the box covers are part of the run.
 */
export function* runsOf({ shape, box, start, end }: Omit<TensorPiece, "name">): Generator<Run> {
  let axis = shape.length - 1;
  while (axis >= 0 && box.sizes[axis] === shape[axis]) axis--;
  const strides = stridesOf(shape);
  // A run covers the box along `axis` and everything below it.
  const inner = axis < 0 ? elementCount(shape) : box.sizes[axis]! * strides[axis]!;
  if (inner === 0) return;
  for (let run = Math.floor(start / inner); run * inner < end; run++) {
    const first = Math.max(start, run * inner);
    const last = Math.min(end, (run + 1) * inner);
    yield {
      whole: originOf(run, box, strides, axis) + first - run * inner,
      piece: first - start,
      length: last - first,
    };
  }
}

/** The first element in the whole tensor of run `index` of a box. */
function originOf(index: number, box: Box, strides: readonly number[], axis: number): number {
  let rest = index;
  let origin = 0;
  for (let outer = axis - 1; outer >= 0; outer--) {
    origin += (box.starts[outer]! + (rest % box.sizes[outer]!)) * strides[outer]!;
    rest = Math.floor(rest / box.sizes[outer]!);
  }
  return axis < 0 ? 0 : origin + box.starts[axis]! * strides[axis]!;
}

/** What two pieces of one tensor have in common, in order. */
export function sharedRuns(from: Omit<TensorPiece, "name">, to: Omit<TensorPiece, "name">): SharedRun[] {
  const shared: SharedRun[] = [];
  const sources = runsOf(from);
  const targets = runsOf(to);
  let source = sources.next();
  let target = targets.next();
  while (source.done !== true && target.done !== true) {
    const a = source.value;
    const b = target.value;
    const first = Math.max(a.whole, b.whole);
    const last = Math.min(a.whole + a.length, b.whole + b.length);
    if (first < last) {
      shared.push({
        from: a.piece + first - a.whole,
        to: b.piece + first - b.whole,
        length: last - first,
      });
    }
    if (a.whole + a.length <= b.whole + b.length) source = sources.next();
    else target = targets.next();
  }
  return shared;
}
