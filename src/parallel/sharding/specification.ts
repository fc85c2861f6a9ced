import { ConfigError } from "../../base/errors.ts";
import type { Box } from "../../base/pieces.ts";
import { formatShape } from "../../base/shape.ts";
import { nearest } from "../../base/suggest.ts";
import type { ParameterSharding, ShardingSpecification, ShardingTable } from "../../graph/annotations.ts";
import { type Mesh, type MeshAxis, type MeshSizes, meshAxes } from "../mesh.ts";
import { type Layout, partsOf, replicated } from "./layout.ts";

/**
 * The layout that a specification asks for; axes of one rank drop out.
 * @param where what is annotated, for errors
 * @throws ConfigError for an unknown axis, an axis named twice, or a specification of other dimensions.
 */
export function layoutOf(
  specification: ShardingSpecification,
  rank: number,
  sizes: MeshSizes,
  where: string,
): Layout {
  if (specification.length !== rank) {
    throw new ConfigError("bad_sharding", "a sharding must name every dimension of its tensor", {
      where,
      expected: `${rank} entries: an axis, a list of axes, or null for each dimension`,
      received: JSON.stringify(specification),
    });
  }
  const seen = new Set<string>();
  const dimensions = specification.map((entry) => {
    const axes = entry === null ? [] : typeof entry === "string" ? [entry] : entry;
    return axes.filter((axis): axis is MeshAxis => {
      requireAxis(axis, where);
      if (seen.has(axis)) {
        throw new ConfigError("bad_sharding", `axis "${axis}" cuts a tensor twice`, {
          where,
          received: JSON.stringify(specification),
        });
      }
      seen.add(axis);
      return sizes[axis] > 1;
    });
  });
  return { dimensions, partial: [] };
}

function requireAxis(axis: string, where: string): asserts axis is MeshAxis {
  if ((meshAxes as readonly string[]).includes(axis)) return;
  const guess = nearest(axis, meshAxes);
  throw new ConfigError("bad_sharding", `there is no mesh axis "${axis}"`, {
    where,
    expected: meshAxes.join(", "),
    ...(guess === undefined ? {} : { hint: `did you mean "${guess}"?` }),
  });
}

/**
 * The layout of a parameter.
 * @throws ConfigError where what it is made of, or its own size, does not divide among the ranks.
 */
export function parameterLayout(
  name: string,
  shape: readonly number[],
  table: ShardingTable,
  sizes: MeshSizes,
): Layout {
  const entry = table.find(({ pattern }) => pattern.test(name));
  if (entry === undefined) return replicated(shape.length);
  const layout = layoutOf(entry.specification, shape.length, sizes, name);
  for (const [dimension, axes] of layout.dimensions.entries()) {
    const parts = partsOf(axes, sizes);
    if (parts === 1) continue;
    const units = entry.units?.count ?? shape[dimension]!;
    if (units % parts === 0 && shape[dimension]! % parts === 0) continue;
    if (entry.units?.optional === true) return replicated(shape.length);
    refuse(name, shape, entry, axes, units, parts);
  }
  return layout;
}

function refuse(
  name: string,
  shape: readonly number[],
  { units }: ParameterSharding,
  axes: readonly MeshAxis[],
  count: number,
  parts: number,
): never {
  const legal = Array.from({ length: count }, (_, index) => index + 1).filter((n) => count % n === 0);
  const shown = legal.length > 12 ? `${legal.slice(0, 12).join(", ")}, …` : legal.join(", ");
  throw new ConfigError("not_divisible", `${name} does not divide among the ranks`, {
    where: axes.map((axis) => `parallel.${axis}`).join(" x "),
    expected: `a divisor of ${units?.name ?? "the size"} ${count}: ${shown}`,
    received: `${parts} ranks for ${formatShape(shape)}`,
  });
}

/** The part of a tensor that a rank has. */
export function boxOf(shape: readonly number[], layout: Layout, mesh: Mesh): Box {
  const starts: number[] = [];
  const sizes = shape.map((size, dimension) => {
    const axes = layout.dimensions[dimension]!;
    let index = 0;
    for (const axis of axes) index = index * mesh.sizes[axis] + mesh.place[axis];
    const part = size / partsOf(axes, mesh.sizes);
    starts.push(index * part);
    return part;
  });
  return { starts, sizes };
}
