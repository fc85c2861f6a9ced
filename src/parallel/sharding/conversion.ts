import { InternalError } from "../../base/errors.ts";
import { type MeshAxis, type MeshSizes, meshAxes } from "../mesh.ts";
import {
  formatLayout,
  type Layout,
  layoutKey,
  partsOf,
  placeOf,
  sameLayout,
  withCut,
  withPartial,
} from "./layout.ts";

/** One step from a layout to another, over one axis of the mesh. */
export type Step =
  | { readonly kind: "all_reduce"; readonly axis: MeshAxis }
  | { readonly kind: "reduce_scatter"; readonly axis: MeshAxis; readonly dimension: number }
  | { readonly kind: "all_gather"; readonly axis: MeshAxis; readonly dimension: number }
  | {
      readonly kind: "all_to_all";
      readonly axis: MeshAxis;
      readonly split: number;
      readonly concatenate: number;
    }
  /** Each rank keeps its part of what all have. */
  | { readonly kind: "slice"; readonly axis: MeshAxis; readonly dimension: number }
  /** The first rank's term is the whole, the others' are zeros. */
  | { readonly kind: "mask"; readonly axis: MeshAxis };

/** The layout after a step. */
export function afterStep(layout: Layout, step: Step): Layout {
  const without = (dimension: number): Layout =>
    withCut(
      layout,
      dimension,
      layout.dimensions[dimension]!.filter((axis) => axis !== step.axis),
    );
  const onto = (from: Layout, dimension: number): Layout =>
    withCut(from, dimension, [...from.dimensions[dimension]!, step.axis]);
  const summed = withPartial(
    layout,
    layout.partial.filter((axis) => axis !== step.axis),
  );
  switch (step.kind) {
    case "all_reduce":
      return summed;
    case "reduce_scatter":
      return onto(summed, step.dimension);
    case "all_gather":
      return without(step.dimension);
    case "all_to_all":
      return onto(without(step.concatenate), step.split);
    case "slice":
      return onto(layout, step.dimension);
    case "mask":
      return withPartial(layout, [...layout.partial, step.axis]);
  }
}

/**
 * The steps from one layout to another: cuts that cost nothing first, so that what follows moves less, then sums
 * and exchanges, gathers last. An axis can leave a dimension only where it is the innermost one that cuts it.
 */
export function planConversion(from: Layout, to: Layout): Step[] {
  const steps: Step[] = [];
  for (let current = from; !sameLayout(current, to); ) {
    const step = nextStep(current, to);
    steps.push(step);
    current = afterStep(current, step);
    if (steps.length > 32) {
      throw new InternalError(`no way from layout ${formatLayout(from)} to ${formatLayout(to)}`);
    }
  }
  return steps;
}

function nextStep(current: Layout, to: Layout): Step {
  const open = (axis: MeshAxis, dimension: number): boolean => {
    const cut = [...current.dimensions[dimension]!, axis];
    return cut.every((present, index) => to.dimensions[dimension]![index] === present);
  };
  const innermost = (axis: MeshAxis, dimension: number): boolean =>
    current.dimensions[dimension]!.at(-1) === axis;
  const moves = meshAxes.flatMap((axis): { step: Step; order: number }[] => {
    const [source, target] = [placeOf(current, axis), placeOf(to, axis)];
    if (source === target) return [];
    if (typeof target === "number" && !(open(axis, target) && source !== target)) return [];
    if (typeof source === "number" && !innermost(axis, source)) return [];
    if (source === undefined) {
      if (target === "partial") return [{ step: { kind: "mask", axis }, order: 5 }];
      return [{ step: { kind: "slice", axis, dimension: target as number }, order: 0 }];
    }
    if (source === "partial") {
      if (target === undefined) return [{ step: { kind: "all_reduce", axis }, order: 3 }];
      return [{ step: { kind: "reduce_scatter", axis, dimension: target as number }, order: 1 }];
    }
    if (typeof target === "number") {
      return [{ step: { kind: "all_to_all", axis, split: target, concatenate: source }, order: 2 }];
    }
    return [{ step: { kind: "all_gather", axis, dimension: source }, order: 4 }];
  });
  moves.sort((a, b) => a.order - b.order);
  if (moves[0] !== undefined) return moves[0].step;
  return forcedStep(current, to);
}

/** Takes away what stands in the way: the innermost cut of a dimension that begins otherwise than it should. */
function forcedStep(current: Layout, to: Layout): Step {
  for (const [dimension, axes] of current.dimensions.entries()) {
    const wanted = to.dimensions[dimension]!;
    if (axes.some((axis, index) => wanted[index] !== axis)) {
      return { kind: "all_gather", axis: axes.at(-1)!, dimension };
    }
  }
  throw new InternalError(`no step from layout ${formatLayout(current)} to ${formatLayout(to)}`);
}

/** What steps cost, in bytes that a rank sends: see `CostWeights`. */
export interface ConversionCost {
  readonly total: number;
  /** Bytes that a rank sends. */
  readonly bytes: number;
}

/** What work on a rank's own memory and each message weigh against a byte sent. */
export interface CostWeights {
  readonly memoryByte: number;
  readonly flop: number;
  readonly message: number;
  /** A byte of a result that every rank of the axis computes and holds whole: ranks are there to hold less each. */
  readonly heldByte: number;
}

/**
 * A link of 1 byte a unit of time beside memory of 20 and arithmetic of 200. What every rank holds weighs as much as
 * it takes that ranks exchange what they could each compute whole from a batch.
 */
export const defaultWeights: CostWeights = { memoryByte: 0.05, flop: 0.005, message: 64, heldByte: 0.5 };

/** The cost of going from a layout to another for a tensor of `bytes` bytes in whole. */
export function conversionCost(
  bytes: number,
  from: Layout,
  to: Layout,
  sizes: MeshSizes,
  weights: CostWeights = defaultWeights,
): ConversionCost {
  let [sent, total] = [0, 0];
  let current = from;
  for (const step of planConversion(from, to)) {
    const size = sizes[step.axis];
    const local = bytes / current.dimensions.reduce((parts, axes) => parts * partsOf(axes, sizes), 1);
    const { moved, messages, touched } = stepCost(step, local, size);
    sent += moved;
    total += moved + messages * weights.message + touched * weights.memoryByte;
    current = afterStep(current, step);
  }
  return { total, bytes: sent };
}

/** As `communicationOf` counts it (graph/rules/communication.ts); and bytes of its own memory that a rank touches. */
function stepCost(step: Step, local: number, size: number) {
  const part = (size - 1) / size;
  switch (step.kind) {
    case "all_reduce":
      return { moved: 2 * part * local, messages: 2 * (size - 1), touched: 0 };
    case "reduce_scatter":
    case "all_to_all":
      return { moved: part * local, messages: size - 1, touched: 0 };
    case "all_gather":
      return { moved: (size - 1) * local, messages: size - 1, touched: 0 };
    case "slice":
      return { moved: 0, messages: 0, touched: local / size };
    case "mask":
      return { moved: 0, messages: 0, touched: local };
  }
}

/** Equal keys, equal steps: what may travel in one bucket. */
export function stepKey(step: Step): string {
  return JSON.stringify(step);
}

/** Says which conversion costs were asked for before. */
export class ConversionCosts {
  readonly #known = new Map<string, ConversionCost>();
  readonly #sizes: MeshSizes;
  readonly #weights: CostWeights;

  constructor(sizes: MeshSizes, weights: CostWeights) {
    this.#sizes = sizes;
    this.#weights = weights;
  }

  /** As `conversionCost`. */
  of(bytes: number, from: Layout, to: Layout): ConversionCost {
    const key = `${bytes} ${layoutKey(from)} > ${layoutKey(to)}`;
    let cost = this.#known.get(key);
    if (cost === undefined) {
      cost = conversionCost(bytes, from, to, this.#sizes, this.#weights);
      this.#known.set(key, cost);
    }
    return cost;
  }
}
