import { bytesPerElement } from "../../base/dtype.ts";
import { ConfigError, InternalError } from "../../base/errors.ts";
import { formatDimension, formatShape, maximumElements } from "../../base/shape.ts";
import {
  type AnyNode,
  type Graph,
  type GraphOutput,
  type Node,
  typeOf,
  type Value,
} from "../../graph/graph.ts";
import type { OpName } from "../../graph/ops.ts";
import { costOf } from "../../graph/rules/cost.ts";
import { type MeshAxis, type MeshSizes, meshAxes } from "../mesh.ts";
import { ConversionCosts, type CostWeights } from "./conversion.ts";
import {
  type Layout,
  layoutKey,
  localElements,
  partsOf,
  placeOf,
  sameLayout,
  withPartial,
} from "./layout.ts";
import { type Factor, minimize } from "./minimize.ts";
import { type NodePlan, strategiesOf, wholePlan } from "./strategies.ts";

/** What is given before anything is chosen. */
export interface Given {
  /** The layout of a leaf that the caller keeps; undefined for batch leaves, which are cut as they are needed. */
  readonly leaf: (node: Node<"leaf">) => Layout | undefined;
  /** The layout in which an output must come out. */
  readonly output: (output: GraphOutput) => Layout;
  /** The layout that a node's author asked for. */
  readonly annotated: (node: AnyNode) => Layout | undefined;
  /** Whether attention stays cut by the tokens of the sequence axis. */
  readonly cutsAttentionTokens?: boolean;
  /** Whether what lies between the matrices may be cut by tokens over `tensor`: true by default. */
  readonly cutsTokensOverTensor?: boolean;
}

/** How every node is computed: with the least communication and repeated work that was found. */
export type Assignment = ReadonlyMap<Node, NodePlan>;

/** Ops whose results are views of their operands, or are fused into what is around them. */
const passing: ReadonlySet<OpName> = new Set(["reshape", "elementwise", "cast", "map", "broadcast"]);

/** What it costs to gather a parameter against other data: models say where weights stay. */
const stationary = 100;

/**
 * Chooses how every node is computed, one axis of the mesh after the other: each time the sum of what conversions
 * between layouts send, and of work that is done by several ranks, is least (`minimize`). A value that several nodes
 * read in one layout is converted once.
 */
export function assignLayouts(
  graph: Graph,
  axes: readonly MeshAxis[],
  sizes: MeshSizes,
  given: Given,
  weights: CostWeights,
): Assignment {
  const plans = new Map<Node, NodePlan>();
  for (const node of graph.nodes) if (node.op !== "leaf") plans.set(node, wholePlan(node));
  const solved: MeshAxis[] = [];
  for (const axis of axes) {
    solved.push(axis);
    const problem = new AxisProblem(graph, axis, solved, sizes, given, weights, plans);
    for (const [node, plan] of problem.solve()) plans.set(node, plan);
  }
  return plans;
}

/** A reader of a value: the layouts that it needs under each of its plans. */
interface Reader {
  /** The variable that chooses among the plans; -1 where there is nothing to choose. */
  readonly variable: number;
  /** What it needs under each choice. */
  readonly needs: readonly (readonly Layout[])[];
}

class AxisProblem {
  readonly #graph: Graph;
  readonly #axis: MeshAxis;
  readonly #axes: readonly MeshAxis[];
  readonly #sizes: MeshSizes;
  readonly #given: Given;
  readonly #weights: CostWeights;
  readonly #costs: ConversionCosts;
  readonly #candidates = new Map<Node, readonly NodePlan[]>();
  readonly #variables = new Map<Node, number>();
  readonly #domains: number[] = [];
  readonly #factors: Factor[] = [];
  readonly #parametersOnly = new Set<Node>();

  constructor(
    graph: Graph,
    axis: MeshAxis,
    axes: readonly MeshAxis[],
    sizes: MeshSizes,
    given: Given,
    weights: CostWeights,
    plans: ReadonlyMap<Node, NodePlan>,
  ) {
    this.#graph = graph;
    this.#axis = axis;
    this.#axes = axes;
    this.#sizes = sizes;
    this.#given = given;
    this.#weights = weights;
    this.#costs = new ConversionCosts(sizes, weights);
    for (const node of graph.nodes) {
      const fed =
        node.inputs.length > 0 && node.inputs.every((input) => this.#parametersOnly.has(input.node));
      if (fed || (node.op === "leaf" && node.attributes.kind === "parameter")) this.#parametersOnly.add(node);
      const base = plans.get(node);
      if (base === undefined) continue;
      const byTokens = given.cutsAttentionTokens === true && axis === "sequence";
      const possible = this.#withoutTokens(node, strategiesOf(node, base, axis, sizes, byTokens));
      const candidates = this.#obeying(node, possible);
      this.#candidates.set(node, candidates);
      this.#variables.set(node, this.#variable(candidates.length));
    }
  }

  solve(): Map<Node, NodePlan> {
    for (const [node, candidates] of this.#candidates) {
      this.#addFactor([this.#variables.get(node)!], [candidates.length], ([choice]) =>
        this.#workOf(node as AnyNode, candidates[choice!]!),
      );
    }
    for (const [value, readers] of this.#readers()) this.#price(value, readers);
    const { choices, cost } = minimize(this.#domains, this.#factors);
    if (!Number.isFinite(cost)) throw new InternalError(`graph ${this.#graph.name} cannot be laid out`);
    const plans = new Map<Node, NodePlan>();
    for (const [node, candidates] of this.#candidates) {
      plans.set(node, candidates[choices[this.#variables.get(node)!]!]!);
    }
    return plans;
  }

  #variable(domain: number): number {
    this.#domains.push(domain);
    return this.#domains.length - 1;
  }

  /** The plans that do not cut tokens, whose number is a symbol, over this axis where it is not to. */
  #withoutTokens(node: Node, plans: readonly NodePlan[]): readonly NodePlan[] {
    if (this.#axis !== "tensor" || this.#given.cutsTokensOverTensor !== false) return plans;
    const cutsTokens = ({ outputs }: NodePlan): boolean =>
      outputs.some((layout, index) => {
        const place = placeOf(layout, this.#axis);
        return typeof place === "number" && typeof node.outputs[index]!.shape[place] !== "number";
      });
    return plans.filter((plan) => !cutsTokens(plan));
  }

  /** The plans whose result lies on this axis as the node's author asked. */
  #obeying(node: AnyNode, plans: readonly NodePlan[]): readonly NodePlan[] {
    const asked = this.#given.annotated(node);
    if (asked === undefined) return plans;
    const wanted = placeOf(asked, this.#axis);
    const obeying = plans.filter((plan) => placeOf(plan.outputs[0]!, this.#axis) === wanted);
    if (obeying.length > 0) return obeying;
    const { shape } = node.outputs[0]!;
    const size = typeof wanted === "number" ? shape[wanted] : undefined;
    throw new ConfigError("bad_sharding", "a tensor cannot be laid out as asked", {
      where: node.scope.name === "" ? "a sharding annotation" : node.scope.name,
      expected: `a dimension that divides among the ranks of ${this.#axis}`,
      received: `${size === undefined ? formatShape(shape) : formatDimension(size)} to divide among ${partsOf([this.#axis], this.#sizes)}`,
    });
  }

  /** Work of one rank. */
  #workOf(node: AnyNode, plan: NodePlan): number {
    const { flops, bytes } = costOf(node);
    const cutting = plan.choices.filter(({ label }) => label !== undefined).map(({ axis }) => axis);
    const work = flops * this.#weights.flop + bytes * this.#weights.memoryByte;
    return work / partsOf(cutting, this.#sizes) + this.#held(node, plan) + this.#innerCut(plan);
  }

  /** What it takes that every rank has all of the results; what depends on parameters alone is the model's matter. */
  #held(node: AnyNode, { outputs }: NodePlan): number {
    if (this.#parametersOnly.has(node) || passing.has(node.op)) return 0;
    const bytes = node.outputs.map(({ shape, dtype }, index) => {
      const layout = outputs[index]!;
      if (placeOf(layout, this.#axis) !== undefined) return 0;
      return localElements(shape, layout, this.#sizes) * bytesPerElement(dtype);
    });
    return bytes.reduce((sum, own) => sum + own, 0) * this.#weights.heldByte;
  }

  /**
   * Among equals the outermost dimension is cut, whose parts are contiguous: tokens stay cut up to attention, where
   * what it needs is then exchanged together.
   */
  #innerCut({ outputs }: NodePlan): number {
    const place = placeOf(outputs[0]!, this.#axis);
    return typeof place === "number" ? place : 0;
  }

  /** Who reads each value, graph outputs included. */
  #readers(): [Value, Reader[]][] {
    const found = new Map<Node, Map<number, Reader[]>>();
    const listOf = ({ node, index }: Value): Reader[] => {
      const byIndex = found.get(node) ?? new Map<number, Reader[]>();
      found.set(node, byIndex);
      const list = byIndex.get(index) ?? [];
      byIndex.set(index, list);
      return list;
    };
    for (const [reader, candidates] of this.#candidates) {
      const variable = this.#variables.get(reader)!;
      const byValue = new Map<Reader[], number[]>();
      reader.inputs.forEach((input, position) => {
        const list = listOf(input);
        byValue.set(list, [...(byValue.get(list) ?? []), position]);
      });
      for (const [list, positions] of byValue) {
        list.push({ variable, needs: candidates.map(({ inputs }) => positions.map((i) => inputs[i]!)) });
      }
    }
    for (const output of this.#graph.outputs) {
      listOf(output.value).push({ variable: -1, needs: [[this.#known(this.#given.output(output))]] });
    }
    return [...found].flatMap(([node, byIndex]) =>
      [...byIndex].map(([index, readers]): [Value, Reader[]] => [{ node, index }, readers]),
    );
  }

  /** The layout as far as the axes are settled that are solved by now. */
  #known({ dimensions, partial }: Layout): Layout {
    const keep = (axes: readonly MeshAxis[]): MeshAxis[] => axes.filter((axis) => this.#axes.includes(axis));
    return { dimensions: dimensions.map(keep), partial: keep(partial) };
  }

  /** Adds what it costs to bring a value into the layouts that its readers need. */
  #price(value: Value, readers: readonly Reader[]): void {
    const source = this.#sourceOf(value);
    // Needs that differ on the axes settled before are met apart.
    const settled = (layout: Layout): string => layoutKey(this.#without(layout));
    const groups = new Set(readers.flatMap(({ needs }) => needs.flat().map(settled)));
    for (const group of groups) {
      const members = readers
        .map(({ variable, needs }): Reader => {
          return { variable, needs: needs.map((list) => list.filter((need) => settled(need) === group)) };
        })
        .filter(({ needs }) => needs.some((list) => list.length > 0));
      this.#priceGroup(source, members);
    }
  }

  #without(layout: Layout): Layout {
    const others = (axes: readonly MeshAxis[]): MeshAxis[] => axes.filter((axis) => axis !== this.#axis);
    return { dimensions: layout.dimensions.map(others), partial: others(layout.partial) };
  }

  #priceGroup(source: Source, readers: readonly Reader[]): void {
    const free = readers.filter(({ variable }) => variable >= 0);
    if (readers.length === 1) {
      const { variable, needs } = readers[0]!;
      this.#addFactor([source.variable, variable], [source.layouts.length, needs.length], ([from, choice]) =>
        source.cost(from!, needs[choice!]!),
      );
      return;
    }
    const wanted = distinct(readers.flatMap(({ needs }) => needs.flat()));
    if (free.length === 0 || wanted.length === 1) {
      this.#addFactor([source.variable], [source.layouts.length], ([from]) => source.cost(from!, wanted));
      return;
    }
    // In which layouts the value is there: chosen once, so that each conversion is paid for once.
    const sets = subsetsOf(wanted);
    const kept = this.#variable(sets.length);
    this.#addFactor([source.variable, kept], [source.layouts.length, sets.length], ([from, set]) =>
      source.cost(from!, sets[set!]!),
    );
    for (const { variable, needs } of readers) {
      this.#addFactor([kept, variable], [sets.length, needs.length], ([set, choice]) =>
        needs[choice!]!.every((need) => sets[set!]!.some((layout) => sameLayout(layout, need)))
          ? 0
          : Number.POSITIVE_INFINITY,
      );
    }
  }

  #sourceOf(value: Value): Source {
    const { node, index } = value;
    const { shape, dtype } = typeOf(value);
    const bytes = maximumElements(shape) * bytesPerElement(dtype);
    const price = (from: Layout, to: Layout): number => this.#costs.of(bytes, from, to).total;
    const sum = (layouts: readonly Layout[], cost: (to: Layout) => number): number =>
      distinct(layouts).reduce((total, to) => total + cost(to), 0);
    if (node.op === "leaf") {
      const layout = this.#given.leaf(node as Node<"leaf">);
      if (layout === undefined) {
        const cost = (to: Layout): number => price(withPartial(to, []), to);
        return { variable: -1, layouts: [undefined], cost: (_, needs) => sum(needs, cost) };
      }
    }
    const known = node.op === "leaf" ? [this.#known(this.#given.leaf(node as Node<"leaf">)!)] : undefined;
    const layouts = known ?? this.#candidates.get(node)!.map(({ outputs }) => outputs[index]!);
    const stays = this.#parametersOnly.has(node);
    return {
      variable: this.#variables.get(node) ?? -1,
      layouts,
      cost: (from, needs) =>
        sum(needs, (to) => {
          const cost = price(layouts[from]!, to);
          return stays && cutsOf(to) < cutsOf(layouts[from]!) ? cost * stationary : cost;
        }),
    };
  }

  /** Adds a factor, without the variables that are -1: those have one choice. */
  #addFactor(
    variables: readonly number[],
    domains: readonly number[],
    cost: (choices: readonly number[]) => number,
  ): void {
    const size = domains.reduce((product, domain) => product * domain, 1);
    const table = new Float64Array(size);
    for (let index = 0; index < size; index++) {
      const choices: number[] = [];
      let rest = index;
      for (const domain of domains.toReversed()) {
        choices.unshift(rest % domain);
        rest = Math.floor(rest / domain);
      }
      table[index] = cost(choices);
    }
    // Without choices of their own, the variables left out have a domain of 1.
    this.#factors.push({ variables: variables.filter((variable) => variable >= 0), table });
  }
}

/** Where a value comes from: its layout under each choice of its variable, and what needs cost from there. */
interface Source {
  readonly variable: number;
  readonly layouts: readonly (Layout | undefined)[];
  readonly cost: (from: number, needs: readonly Layout[]) => number;
}

function cutsOf({ dimensions }: Layout): number {
  return dimensions.reduce((count, axes) => count + axes.length, 0);
}

function distinct(layouts: readonly Layout[]): Layout[] {
  return [...new Map(layouts.map((layout) => [layoutKey(layout), layout])).values()];
}

/** Sets of one to three layouts. */
function subsetsOf(layouts: readonly Layout[]): Layout[][] {
  const sets: Layout[][] = [];
  for (let mask = 1; mask < 2 ** layouts.length; mask++) {
    const set = layouts.filter((_, index) => (mask >> index) % 2 === 1);
    if (set.length <= 3) sets.push(set);
  }
  return sets;
}

/** Axes in the order in which they are solved: what cuts batches first. */
export function solvingOrder(sizes: MeshSizes, axes: readonly MeshAxis[]): MeshAxis[] {
  return meshAxes.filter((axis) => axes.includes(axis) && sizes[axis] > 1);
}
