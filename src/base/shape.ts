import { ShapeError } from "./errors.ts";

/**
 * A dimension known only when a program runs: `scale` times the value bound to `symbol`, which is at
 * most `bound`. Programs are planned for the bound and run at any smaller value.
 */
export interface SymbolicDimension {
  readonly symbol: string;
  readonly bound: number;
  readonly scale: number;
}

/** A number, or a bounded symbol such as `tokens <= 2048`. */
export type Dimension = number | SymbolicDimension;

/** The dimensions of a tensor, outermost first; `[]` is a scalar. */
export type Shape = readonly Dimension[];

/** Values of the symbols for one run. */
export type SymbolValues = Readonly<Record<string, number>>;

/** A dimension named `symbol` that takes values from 0 to `bound`. */
export function symbolic(symbol: string, bound: number): SymbolicDimension {
  if (!Number.isInteger(bound) || bound < 1) {
    throw new ShapeError("bad_bound", `the bound of dimension "${symbol}" must be a positive integer`, {
      received: String(bound),
    });
  }
  return { symbol, bound, scale: 1 };
}

/** Whether two dimensions are the same whatever the symbols' values. */
export function sameDimension(a: Dimension, b: Dimension): boolean {
  if (typeof a === "number" || typeof b === "number") return a === b;
  return a.symbol === b.symbol && a.scale === b.scale && a.bound === b.bound;
}

/** Whether two shapes are the same whatever the symbols' values. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dimension, axis) => sameDimension(dimension, b[axis]!));
}

/** The largest value of a dimension. */
export function upperBound(dimension: Dimension): number {
  return typeof dimension === "number" ? dimension : dimension.scale * dimension.bound;
}

/** The value of a dimension in one run; throws where its symbol is unbound or above its bound. */
export function resolveDimension(dimension: Dimension, symbols: SymbolValues): number {
  if (typeof dimension === "number") return dimension;
  const value = symbols[dimension.symbol];
  if (value === undefined) {
    throw new ShapeError("unbound_symbol", `dimension "${dimension.symbol}" has no value in this run`);
  }
  if (value > dimension.bound || value < 0 || !Number.isInteger(value)) {
    throw new ShapeError("symbol_out_of_bounds", `dimension "${dimension.symbol}" does not fit its program`, {
      expected: `an integer from 0 to ${dimension.bound}`,
      received: String(value),
    });
  }
  return value * dimension.scale;
}

/** The shape's numbers in one run. */
export function resolveShape(shape: Shape, symbols: SymbolValues): number[] {
  return shape.map((dimension) => resolveDimension(dimension, symbols));
}

/** The shape with every symbol at its bound. */
export function boundShape(shape: Shape): number[] {
  return shape.map(upperBound);
}

/** Elements of a shape of plain numbers. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, dimension) => product * dimension, 1);
}

/** The most elements a shape can have. */
export function maximumElements(shape: Shape): number {
  return elementCount(boundShape(shape));
}

/**
 * The product of dimensions. At most one may be symbolic: products of symbols are not tracked.
 * @throws ShapeError where two are.
 */
export function productOf(dimensions: Shape): Dimension {
  let factor = 1;
  let symbol: SymbolicDimension | undefined;
  for (const dimension of dimensions) {
    if (typeof dimension === "number") factor *= dimension;
    else if (symbol === undefined) symbol = dimension;
    else throw new ShapeError("symbol_product", `cannot multiply dimensions ${formatShape(dimensions)}`);
  }
  return symbol === undefined ? factor : { ...symbol, scale: symbol.scale * factor };
}

/** Row-major strides, in elements. */
export function stridesOf(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1]! * shape[axis + 1]!;
  return strides;
}

/** A dimension as text: `8`, `tokens<=2048` or `4*tokens<=2048`. */
export function formatDimension(dimension: Dimension): string {
  if (typeof dimension === "number") return String(dimension);
  const prefix = dimension.scale === 1 ? "" : `${dimension.scale}*`;
  return `${prefix}${dimension.symbol}<=${dimension.bound}`;
}

/** A shape as text: `[tokens<=2048, 512]`. */
export function formatShape(shape: Shape): string {
  return `[${shape.map(formatDimension).join(", ")}]`;
}
