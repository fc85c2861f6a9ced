import { InternalError } from "../../base/errors.ts";
import { type Dimension, type Shape, sameShape } from "../../base/shape.ts";
import { multiply } from "../../graph/build.ts";
import {
  type AnyNode,
  apply,
  createNode,
  dtypeOf,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import type { OpAttributes, OpName } from "../../graph/ops.ts";
import { communicationOf } from "../../graph/rules/communication.ts";
import type { Mesh, MeshAxis } from "../mesh.ts";
import { afterStep, planConversion, type Step, stepKey } from "./conversion.ts";
import { type Layout, layoutKey, localShape } from "./layout.ts";

/** A value that is needed in a layout. */
export interface Request {
  readonly value: Value;
  readonly layout: Layout;
}

/** A step that values were taken through together, and for whom. */
export interface Conversion {
  readonly step: Step;
  /** Values of the whole graph, each with its layouts before and after the step. */
  readonly values: readonly { readonly value: Value; readonly from: Layout; readonly to: Layout }[];
  /** The node of the whole graph that asked for it; undefined for what the graph gives. */
  readonly reader: Node | undefined;
  /** What a rank sends: nothing for steps within a rank. */
  readonly bytes: number;
}

/** A value on its way to the layout that was asked for. */
interface Journey {
  readonly origin: Value;
  layout: Layout;
  current: Value;
  readonly steps: Step[];
}

/**
 * Keeps every value of a rank's graph in the layouts in which it is there, and brings it into others: steps of one
 * kind that are asked for together travel as one collective, and what was converted once is not converted again.
 */
export class LocalValues {
  /** Every step taken, in order. */
  readonly conversions: Conversion[] = [];
  readonly #mesh: Mesh;
  readonly #known = new Map<Node, Map<string, { readonly layout: Layout; readonly value: Value }>[]>();

  constructor(mesh: Mesh) {
    this.#mesh = mesh;
  }

  /** Says that a value is there as `local` in a layout. */
  define(value: Value, layout: Layout, local: Value): void {
    const expected = localShape(shapeOf(value), layout, this.#mesh.sizes);
    if (!sameShape(shapeOf(local), expected)) {
      throw new InternalError(`the local ${local.node.op} has another shape than its layout says`, {
        expected: JSON.stringify(expected),
        received: JSON.stringify(shapeOf(local)),
        where: value.node.scope.name,
      });
    }
    const versions = this.#versions(value);
    if (!versions.has(layoutKey(layout))) versions.set(layoutKey(layout), { layout, value: local });
  }

  /**
   * The values in the layouts asked for, in order.
   * @param reader the node that asks
   */
  inLayouts(requests: readonly Request[], reader?: Node): Value[] {
    const journeys = requests.map(({ value, layout }): Journey => {
      const start = this.#nearest(value, layout);
      return { origin: value, layout: start.layout, current: start.value, steps: start.steps };
    });
    for (;;) {
      for (const journey of journeys) this.#follow(journey);
      const waiting = journeys.filter(({ steps }) => steps.length > 0);
      if (waiting.length === 0) return journeys.map(({ current }) => current);
      this.#advance(waiting, reader);
    }
  }

  #versions({ node, index }: Value): Map<string, { readonly layout: Layout; readonly value: Value }> {
    const list = this.#known.get(node) ?? [];
    this.#known.set(node, list);
    list[index] ??= new Map();
    return list[index];
  }

  /** The version from which the fewest exchanges lead to a layout; the one defined first among equals. */
  #nearest(value: Value, layout: Layout): { layout: Layout; value: Value; steps: Step[] } {
    const ways = [...this.#versions(value).values()].map((version) => {
      const steps = planConversion(version.layout, layout);
      const exchanges = steps.filter(({ kind }) => kind !== "slice" && kind !== "mask").length;
      return { ...version, steps, exchanges };
    });
    const fewest = Math.min(...ways.map(({ exchanges }) => exchanges));
    const way = ways.find(({ exchanges }) => exchanges === fewest);
    if (way === undefined) throw new InternalError(`${value.node.op} is read before it is there`);
    return way;
  }

  /** Takes the steps that were taken before by someone else. */
  #follow(journey: Journey): void {
    for (let step = journey.steps[0]; step !== undefined; step = journey.steps[0]) {
      const layout = afterStep(journey.layout, step);
      const present = this.#versions(journey.origin).get(layoutKey(layout));
      if (present === undefined) return;
      journey.layout = layout;
      journey.current = present.value;
      journey.steps.shift();
    }
  }

  /** Takes the next step of all journeys whose next step is the first one's. */
  #advance(waiting: readonly Journey[], reader: Node | undefined): void {
    const step = waiting[0]!.steps[0]!;
    const key = (journey: Journey): string => `${stepKey(journey.steps[0]!)} ${dtypeOf(journey.current)}`;
    const together = new Map<Value, Journey>();
    for (const journey of waiting) {
      if (key(journey) === key(waiting[0]!)) together.set(journey.current, journey);
    }
    const operands = [...together.keys()];
    const results = this.#apply(step, operands);
    const values = [...together.values()].map(({ origin, layout }) => {
      return { value: origin, from: layout, to: afterStep(layout, step) };
    });
    values.forEach(({ value, to }, index) => {
      this.define(value, to, results[index]!);
    });
    const bytes = communicationOf(results[0]!.node as AnyNode)?.bytes ?? 0;
    this.conversions.push({ step, values, reader, bytes });
  }

  #apply(step: Step, operands: readonly Value[]): Value[] {
    const group = this.#mesh.groupOf([step.axis]);
    const all = <Op extends OpName>(op: Op, attributes: OpAttributes[Op]): Value[] => {
      const { node } = apply(op, operands, attributes);
      return operands.map((_, index) => ({ node, index }));
    };
    switch (step.kind) {
      case "all_reduce":
        return all("all_reduce", { group });
      case "reduce_scatter":
        return all("reduce_scatter", { group, dimension: step.dimension });
      case "all_gather":
        return all("all_gather", { group, dimension: step.dimension });
      case "all_to_all":
        return all("all_to_all", { group, split: step.split, concatenate: step.concatenate });
      case "slice":
        return operands.map((value) => this.#ownPart(value, step.axis, step.dimension));
      case "mask":
        return operands.map((value) => multiply(value, group.rank === 0 ? 1 : 0));
    }
  }

  /** The rank's part of a dimension; the parts get a dimension of their own, as a size may be a symbol. */
  #ownPart(value: Value, axis: MeshAxis, dimension: number): Value {
    const shape = shapeOf(value);
    const { size, rank } = this.#mesh.groupOf([axis]);
    const layout: Layout = {
      dimensions: shape.map((_, position) => (position === dimension ? [axis] : [])),
      partial: [],
    };
    const part = localShape(shape, layout, this.#mesh.sizes);
    const before = part.slice(0, dimension);
    const after = part.slice(dimension);
    const parts: Shape = [...before, size, ...after];
    const split = apply("reshape", [value], { shape: parts });
    const starts = parts.map((_, position) => (position === dimension ? rank : 0));
    const sizes: Dimension[] = [...before, 1, ...after];
    return apply("reshape", [apply("slice", [split], { starts, sizes })], { shape: part });
  }
}

/** The node on a rank's part: its attributes name the shapes of its local result. */
export function localNode(node: AnyNode, inputs: readonly Value[], result: Shape): AnyNode {
  return createNode(node.op, inputs, localAttributes(node, result), node) as AnyNode;
}

function localAttributes(node: AnyNode, shape: Shape): OpAttributes[OpName] {
  switch (node.op) {
    case "leaf":
    case "fill":
    case "iota":
    case "reshape":
    case "broadcast":
    case "pad_into":
      return { ...node.attributes, shape };
    case "slice":
      return { ...node.attributes, sizes: shape };
    default:
      return node.attributes;
  }
}
