import { type Dimension, formatShape, productOf, sameDimension, upperBound } from "../../../base/shape.ts";
import type { ShapeRule } from "../shape.ts";
import { lastDimension, operands, requireInteger, requireSame } from "./common.ts";

type MovementOp =
  | "reshape"
  | "broadcast"
  | "transpose"
  | "slice"
  | "pad_into"
  | "concatenate"
  | "gather"
  | "scatter_add"
  | "reduce"
  | "argmax";

/** Shapes of the ops that move or reduce elements. */
export const movementShapes: { readonly [Op in MovementOp]: ShapeRule<Op> } = {
  reshape: (inputs, { shape }, fail) => {
    const [x] = operands(inputs, 1, fail);
    if (!sameDimension(productOf(x!.shape), productOf(shape))) {
      fail(`the new shape ${formatShape(shape)} has another number of elements`);
    }
    return [{ shape, dtype: x!.dtype }];
  },
  broadcast: (inputs, { shape }, fail) => {
    const [x] = operands(inputs, 1, fail);
    const offset = shape.length - x!.shape.length;
    const fits =
      offset >= 0 &&
      x!.shape.every((dimension, axis) => dimension === 1 || sameDimension(dimension, shape[offset + axis]!));
    if (!fits) fail(`it does not broadcast to ${formatShape(shape)}`);
    return [{ shape, dtype: x!.dtype }];
  },
  transpose: (inputs, { permutation }, fail) => {
    const [x] = operands(inputs, 1, fail);
    const sorted = [...permutation].sort((a, b) => a - b);
    if (sorted.length !== x!.shape.length || sorted.some((axis, index) => axis !== index)) {
      fail(`[${permutation.join(", ")}] is not a permutation of the axes`);
    }
    return [{ shape: permutation.map((axis) => x!.shape[axis]!), dtype: x!.dtype }];
  },
  slice: (inputs, { starts, sizes }, fail) => {
    const [x] = operands(inputs, 1, fail);
    if (starts.length !== x!.shape.length || sizes.length !== x!.shape.length)
      fail("starts and sizes must name every axis");
    starts.forEach((start, axis) => {
      const whole = start === 0 && sameDimension(sizes[axis]!, x!.shape[axis]!);
      if (!whole && (start < 0 || start + upperBound(sizes[axis]!) > upperBound(x!.shape[axis]!))) {
        fail(`axis ${axis}: ${start} + ${upperBound(sizes[axis]!)} is past the end`);
      }
    });
    return [{ shape: sizes, dtype: x!.dtype }];
  },
  pad_into: (inputs, { starts, shape }, fail) => {
    const [x] = operands(inputs, 1, fail);
    if (starts.length !== x!.shape.length || shape.length !== x!.shape.length)
      fail("starts and shape must name every axis");
    starts.forEach((start, axis) => {
      const [size, room] = [x!.shape[axis]!, shape[axis]!];
      const whole = start === 0 && sameDimension(size, room);
      if (!whole && (start < 0 || start + upperBound(size) > upperBound(room))) {
        fail(`axis ${axis}: ${start} + ${upperBound(size)} is past the end of ${formatShape(shape)}`);
      }
    });
    return [{ shape, dtype: x!.dtype }];
  },
  concatenate: (inputs, { axis }, fail) => {
    const types = operands(inputs, 1, fail, Number.POSITIVE_INFINITY);
    const first = types[0]!;
    let total: Dimension = 0;
    for (const type of types) {
      if (type.shape.length !== first.shape.length || type.dtype !== first.dtype)
        fail("ranks and dtypes must be equal");
      type.shape.forEach((dimension, position) => {
        if (position !== axis && !sameDimension(dimension, first.shape[position]!))
          fail(`sizes differ outside axis ${axis}`);
      });
      const size = type.shape[axis] ?? fail(`there is no axis ${axis}`);
      if (types.length === 1) total = size;
      else if (typeof size === "number" && typeof total === "number") total += size;
      else fail("a symbolic dimension cannot be concatenated");
    }
    return [{ shape: first.shape.with(axis, total), dtype: first.dtype }];
  },
  gather: (inputs, _attributes, fail) => {
    const [x, ids] = operands(inputs, 2, fail);
    requireInteger(ids!, "ids", fail);
    if (x!.shape.length === 0) fail("x must have rows");
    return [{ shape: [...ids!.shape, ...x!.shape.slice(1)], dtype: x!.dtype }];
  },
  scatter_add: (inputs, { rows }, fail) => {
    const [x, ids] = operands(inputs, 2, fail);
    requireInteger(ids!, "ids", fail);
    requireSame(x!.shape.slice(0, ids!.shape.length), ids!.shape, "the leading axes of x and the ids", fail);
    return [{ shape: [rows, ...x!.shape.slice(ids!.shape.length)], dtype: x!.dtype }];
  },
  reduce: (inputs, { axes, keep }, fail) => {
    const [x] = operands(inputs, 1, fail);
    if (axes.some((axis) => axis < 0 || axis >= x!.shape.length))
      fail(`axes [${axes.join(", ")}] are not all there`);
    if (new Set(axes).size !== axes.length) fail(`axes [${axes.join(", ")}] name one twice`);
    const shape = x!.shape
      .map((dimension, axis) => (axes.includes(axis) ? 1 : dimension))
      .filter((_, axis) => keep || !axes.includes(axis));
    return [{ shape, dtype: x!.dtype }];
  },
  argmax: (inputs, _attributes, fail) => {
    const [x] = operands(inputs, 1, fail);
    lastDimension(x!.shape, fail);
    return [{ shape: x!.shape.slice(0, -1), dtype: "i32" }];
  },
};
