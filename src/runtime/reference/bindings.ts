import { type DType, decode, encode, isFloat, type TensorData, viewOf } from "../../base/dtype.ts";
import { ShapeError } from "../../base/errors.ts";
import { elementCount, resolveShape, type SymbolValues } from "../../base/shape.ts";
import type { TensorType } from "../../graph/graph.ts";
import { formatType } from "../../graph/rules/shape.ts";
import type { Bindings } from "../backend.ts";

/**
 * The memory bound to `name`, checked: of the array type of its dtype (or a Float64Array for any float
 * dtype), and large enough for the shape under `symbols`.
 * @throws ShapeError naming what is bound wrongly.
 */
export function boundMemory(
  bindings: Bindings,
  name: string,
  type: TensorType,
  symbols: SymbolValues,
): TensorData {
  const data = bindings[name];
  const elements = elementCount(resolveShape(type.shape, symbols));
  const expected = `${arrayName(type.dtype)} of at least ${elements} elements for ${formatType(type)}`;
  if (data === undefined) {
    throw new ShapeError("binding_missing", `nothing is bound to "${name}"`, {
      expected,
      received: `bindings of ${Object.keys(bindings).join(", ") || "nothing"}`,
    });
  }
  if (storageDType(data, type.dtype) === undefined) {
    throw new ShapeError("wrong_dtype", `the memory bound to "${name}" is of another type`, {
      expected,
      received: data.constructor.name,
    });
  }
  if (data.length < elements) {
    throw new ShapeError("binding_too_small", `the memory bound to "${name}" is too small`, {
      expected,
      received: `${data.length} elements`,
    });
  }
  return data;
}

/** Reads `elements` numbers from bound memory of a value of `dtype`. */
export function readBinding(data: TensorData, dtype: DType, elements: number): Float64Array {
  return decode(storageDType(data, dtype) ?? dtype, data.subarray(0, elements));
}

/** Rounds values to what the memory of a value of `dtype` holds and stores them from its beginning. */
export function writeBinding(data: TensorData, dtype: DType, values: Float64Array): void {
  data.set(encode(storageDType(data, dtype) ?? dtype, values));
}

/** The dtype in which memory for a value of `dtype` is held: its own, or f64 for a float; else undefined. */
function storageDType(data: TensorData, dtype: DType): DType | undefined {
  if (isFloat(dtype) && data instanceof Float64Array) return "f64";
  return arrayName(dtype) === data.constructor.name ? dtype : undefined;
}

function arrayName(dtype: DType): string {
  return viewOf(dtype, new ArrayBuffer(0)).constructor.name;
}
