import { elementCount } from "../../base/shape.ts";
import type { ParameterTable } from "../../nn/parameters.ts";

/** The parameters of like modules together. */
export interface ModuleCount {
  /** The module's name, with `*` for the number of a repeated block. */
  readonly name: string;
  /** How many modules have that name: the blocks of the model, or 1. */
  readonly modules: number;
  /** Elements of all of them. */
  readonly parameters: number;
}

/** `model.layers.3.mlp.up_proj.weight` belongs to `model.layers.*.mlp`, in block 3. */
function moduleOf(parameter: string): { readonly name: string; readonly block: string } {
  const parts = parameter.split(".");
  const number = parts.findIndex((part) => /^\d+$/.test(part));
  if (number < 0) return { name: parts.slice(0, -1).join("."), block: "" };
  const name = [...parts.slice(0, number), "*", ...parts.slice(number + 1, number + 2)].join(".");
  return { name, block: parts[number]! };
}

/** Counts parameters by module, in order of definition. */
export function countModules(parameters: ParameterTable): ModuleCount[] {
  const found = new Map<string, { blocks: Set<string>; parameters: number }>();
  for (const { name: parameter, shape } of parameters.values()) {
    const { name, block } = moduleOf(parameter);
    const entry = found.get(name) ?? { blocks: new Set<string>(), parameters: 0 };
    entry.blocks.add(block);
    entry.parameters += elementCount(shape);
    found.set(name, entry);
  }
  return [...found].map(([name, entry]) => ({
    name,
    modules: entry.blocks.size,
    parameters: entry.parameters,
  }));
}
