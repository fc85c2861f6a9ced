import { type Dimension, type Shape, upperBound } from "../../base/shape.ts";
import { type MeshAxis, type MeshSizes, meshAxes } from "../mesh.ts";

/**
 * How a tensor lies on the mesh: for each dimension the axes that cut it, from the outermost to the innermost, and
 * the axes over which every rank has a term of a sum that is still to be made. Ranks of all other axes have the same.
 */
export interface Layout {
  readonly dimensions: readonly (readonly MeshAxis[])[];
  readonly partial: readonly MeshAxis[];
}

/** Every rank has all of a tensor of this many dimensions. */
export function replicated(rank: number): Layout {
  return { dimensions: Array.from({ length: rank }, () => []), partial: [] };
}

/** Equal keys, equal layouts. */
export function layoutKey({ dimensions, partial }: Layout): string {
  const cuts = dimensions.map((axes) => axes.join("+")).join(",");
  return partial.length === 0 ? cuts : `${cuts} partial ${partial.join("+")}`;
}

/** Whether two layouts are the same. */
export function sameLayout(a: Layout, b: Layout): boolean {
  return layoutKey(a) === layoutKey(b);
}

/** A layout as text: `[sequence+tensor, -]`, `[-, -] partial over tensor`. */
export function formatLayout({ dimensions, partial }: Layout): string {
  const cuts = dimensions.map((axes) => (axes.length === 0 ? "-" : axes.join("+"))).join(", ");
  return `[${cuts}]${partial.length === 0 ? "" : ` partial over ${partial.join("+")}`}`;
}

/** Where an axis stands in a layout: the dimension that it cuts, "partial", or undefined where it does nothing. */
export function placeOf(layout: Layout, axis: MeshAxis): number | "partial" | undefined {
  if (layout.partial.includes(axis)) return "partial";
  const dimension = layout.dimensions.findIndex((axes) => axes.includes(axis));
  return dimension < 0 ? undefined : dimension;
}

/** The layout with a dimension cut by other axes. */
export function withCut(layout: Layout, dimension: number, axes: readonly MeshAxis[]): Layout {
  return { ...layout, dimensions: layout.dimensions.with(dimension, axes) };
}

/** The layout with sums to be made over other axes. */
export function withPartial(layout: Layout, axes: readonly MeshAxis[]): Layout {
  return { ...layout, partial: meshAxes.filter((axis) => axes.includes(axis)) };
}

/** Into how many parts axes cut. */
export function partsOf(axes: readonly MeshAxis[], sizes: MeshSizes): number {
  return axes.reduce((product, axis) => product * sizes[axis], 1);
}

/** Whether a dimension divides into equal parts, whatever its symbol's value. */
export function divides(size: Dimension, parts: number): boolean {
  return (typeof size === "number" ? size : size.scale) % parts === 0;
}

/** The size of one of `parts` equal parts. */
export function dividedBy(size: Dimension, parts: number): Dimension {
  return typeof size === "number" ? size / parts : { ...size, scale: size.scale / parts };
}

/** The shape of a rank's part. */
export function localShape(shape: Shape, { dimensions }: Layout, sizes: MeshSizes): Shape {
  return shape.map((size, axis) => dividedBy(size, partsOf(dimensions[axis]!, sizes)));
}

/** Elements of a rank's part with every symbol at its bound. */
export function localElements(shape: Shape, layout: Layout, sizes: MeshSizes): number {
  return shape.reduce<number>(
    (product, size, axis) => (product * upperBound(size)) / partsOf(layout.dimensions[axis]!, sizes),
    1,
  );
}
