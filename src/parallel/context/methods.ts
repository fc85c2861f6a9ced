import { ConfigError } from "../../base/errors.ts";
import type { ContextPlan } from "./context_parallel.ts";
import type { SequenceGrid } from "./grid.ts";

/** The published ways of context-parallel attention, by the names that a config gives them. */
export const contextMethods = ["ring", "striped", "burst", "usp", "loongtrain"] as const;
export type ContextMethod = (typeof contextMethods)[number];

/** How a method splits the sequence axis. */
export interface ContextSettings {
  /** Ranks that split heads; 1 for methods of rings alone. */
  readonly heads: number;
  /** Ranks of each inner ring; all that pass keys and values around by default. */
  readonly innerRing?: number;
  readonly placement: SequenceGrid["placement"];
}

/**
 * The plan of a method over the `ranks` of the sequence axis. `ring` (arXiv 2310.01889) gives each rank a stretch of
 * tokens; `striped` (arXiv 2311.09431), and the methods after it, every n-th one, so that causal work is the same on
 * all ranks. `burst` (arXiv 2403.09347) passes around what has fewer bytes in the backward pass; `usp` (arXiv
 * 2405.07719) splits heads, too; `loongtrain` (arXiv 2406.18485) does so with rings of rings.
 * @throws ConfigError where the degrees do not multiply to the number of ranks, with the legal values.
 */
export function contextPlan(method: ContextMethod, ranks: number, settings: ContextSettings): ContextPlan {
  const { heads, placement } = settings;
  requireDivisor("sequence_parallel.ulysses_degree", heads, ranks);
  const rings = ranks / heads;
  const inner = settings.innerRing ?? rings;
  requireDivisor("sequence_parallel.inner_ring", inner, rings);
  return {
    grid: { head: heads, outer: rings / inner, inner, placement },
    order: method === "ring" ? "contiguous" : "striped",
    backward: method === "burst" ? "least" : "keys",
  };
}

function requireDivisor(where: string, value: number, ranks: number): void {
  if (Number.isInteger(value) && value >= 1 && ranks % value === 0) return;
  const legal = Array.from({ length: ranks }, (_, index) => index + 1).filter((n) => ranks % n === 0);
  throw new ConfigError("bad_mesh", "the ranks of the sequence axis do not divide so", {
    where,
    expected: `one of ${legal.join(", ")} (${ranks} ranks)`,
    received: String(value),
  });
}
