import { bytesPerElement, type TensorData } from "../base/dtype.ts";
import { ShapeError } from "../base/errors.ts";
import { elementCount, formatShape, resolveShape, type SymbolValues } from "../base/shape.ts";
import type { Binding, Program } from "../compiler/plan/program.ts";
import type { Bindings } from "./backend.ts";

/**
 * The memory of each binding of a program, in order, checked against the shapes of this run.
 * @throws ShapeError naming the leaf or output whose memory is missing, too small or of another width.
 */
export function collectBindings(program: Program, bound: Bindings, symbols: SymbolValues): TensorData[] {
  return program.bindings.map((binding) => {
    const data = bound[binding.name];
    if (data === undefined) throw missing(program, binding);
    const needed = elementCount(resolveShape(binding.shape, symbols));
    if (data.length < needed || data.BYTES_PER_ELEMENT !== bytesPerElement(binding.dtype)) {
      throw new ShapeError("binding_too_small", `the memory bound to "${binding.name}" does not fit`, {
        where: `program ${program.name}`,
        expected: `at least ${needed} elements of ${binding.dtype} for ${formatShape(binding.shape)}`,
        received: `${data.length} elements of ${data.BYTES_PER_ELEMENT} bytes`,
      });
    }
    return data;
  });
}

function missing(program: Program, binding: Binding): ShapeError {
  return new ShapeError("binding_missing", `nothing is bound to "${binding.name}"`, {
    where: `program ${program.name}`,
    expected: `${binding.dtype}${formatShape(binding.shape)} (${binding.role})`,
    hint: `pass { "${binding.name}": data } among the bindings`,
  });
}

/** The values of a program's symbols in its order. @throws ShapeError for a missing one or one out of bounds. */
export function collectSymbols(program: Program, symbols: SymbolValues): Float64Array {
  return Float64Array.from(program.symbols, ({ name, bound }) => {
    const value = symbols[name];
    if (value === undefined || !Number.isInteger(value) || value < 0 || value > bound) {
      throw new ShapeError(
        "symbol_out_of_bounds",
        `program ${program.name}: "${name}" has no value that fits`,
        {
          expected: `an integer from 0 to ${bound}`,
          received: String(value),
        },
      );
    }
    return value;
  });
}
