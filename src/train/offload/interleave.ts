import { backwardUse } from "../../compiler/passes/separate_uses.ts";
import type { Pass } from "../../compiler/pipeline.ts";
import { isView, rootOf } from "../../compiler/plan/storage.ts";
import {
  type AnyNode,
  apply,
  type Graph,
  type GraphOutput,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import { isCollective } from "../../graph/ops.ts";
import { costOf } from "../../graph/rules/cost.ts";
import { inScope } from "../../graph/scope.ts";
import type { Optimizer } from "../../optim/optimizer.ts";
import type { Sweep } from "../layout.ts";
import { gradientName, SweepUpdates } from "../programs.ts";

/** When a sub-group can be updated. */
export interface ReadySubGroup {
  readonly name: string;
  /** The share of the program's arithmetic that is left then. */
  readonly remaining: number;
}

/** Updates for the program of a step's last micro-batch to make. */
export interface InterleavedUpdates {
  /** Sub-groups, each a parameter's own sweep, named after it. */
  readonly subGroups: readonly Sweep[];
  readonly optimizer: Optimizer;
  /** Elements that one collective gathers. */
  readonly bucket: number;
  /** Rounds what was updated to bf16 as well. */
  readonly halves: boolean;
  /** Picks those that the program updates, by name. */
  readonly choose: (ready: readonly ReadySubGroup[]) => ReadonlySet<string>;
}

/**
 * The pass that updates sub-groups within a program of forward and backward: each one right after the last step that
 * changes its gradient or reads its weights (arXiv 2410.21316). Its leaves are those of `updateGraph`: other names for
 * memory that the program reads and writes under its own. So the pass must be the last one, on nodes in the order in
 * which steps will run; then the optimizer's kernels see what they would see after the program.
 */
export function interleaveUpdates(updates: InterleavedUpdates): Pass {
  return { name: "interleave updates", run: (graph) => interleave(graph, updates) };
}

function interleave(
  graph: Graph,
  { subGroups, optimizer, bucket, halves, choose }: InterleavedUpdates,
): Graph {
  const order = new StepOrder(graph);
  const ready = subGroups
    .map((sweep) => ({ sweep, place: order.placeOf(sweep.name) }))
    .sort((a, b) => a.place - b.place);
  const chosen = choose(
    ready.map(({ sweep, place }) => ({ name: sweep.name, remaining: order.remainingAt(place) })),
  );
  const known = new Set<Node>(graph.nodes);
  const leaves: AnyNode[] = [];
  const inserted = new Map<number, AnyNode[]>();
  const outputs: GraphOutput[] = [];
  const replaced = new Map<GraphOutput, GraphOutput>();
  const record = (place: number, made: readonly GraphOutput[]): void => {
    const list = inserted.get(place) ?? [];
    inserted.set(place, list);
    const visit = (node: Node): void => {
      if (known.has(node)) return;
      known.add(node);
      for (const input of node.inputs) visit(input.node);
      (node.op === "leaf" ? leaves : list).push(node as AnyNode);
    };
    for (const { value, target } of made) {
      visit(value.node);
      if (target !== undefined) visit(target.node);
    }
  };
  const sweeps = new SweepUpdates(optimizer, bucket, halves);
  const within = <Result>(place: number, body: () => Result): Result =>
    inScope({ ...graph.nodes[place]!.scope, phase: "backward" }, body);
  for (const { sweep, place } of ready) {
    if (!chosen.has(sweep.name)) continue;
    within(place, () => {
      // A result of a collective is waited for by what reads it: here, not at the end of the program.
      for (const output of order.gradientsOf(sweep.name)) {
        if (!isUnderWay(output.value)) continue;
        const waited = { ...output, value: copyOf(output.value) };
        replaced.set(output, waited);
        record(place, [waited]);
      }
      const made = sweeps.update(sweep);
      record(place, made);
      outputs.push(...made);
    });
  }
  const last = graph.nodes.length - 1;
  const published = within(last, () => sweeps.publish());
  record(last, published);
  return {
    ...graph,
    nodes: [...leaves, ...graph.nodes.flatMap((node, index) => [node, ...(inserted.get(index) ?? [])])],
    outputs: [...graph.outputs.map((output) => replaced.get(output) ?? output), ...outputs, ...published],
  };
}

/** Whether a value is made by a collective, beside the steps that follow it. */
function isUnderWay(value: Value): boolean {
  return isCollective(rootOf(value).node.op);
}

function copyOf(value: Value): Value {
  const sizes = shapeOf(value);
  return apply("slice", [value], { starts: sizes.map(() => 0), sizes });
}

/** Where the steps of a graph are done with gradients and weights. */
class StepOrder {
  readonly #nodes: readonly AnyNode[];
  readonly #position: ReadonlyMap<Node, number>;
  /** By the name of the target's leaf. */
  readonly #outputs = new Map<string, GraphOutput[]>();
  /** The last position at which a leaf's memory is read, by its name. */
  readonly #lastRead = new Map<string, number>();
  /** Arithmetic up to and with a position. */
  readonly #flops: number[] = [];

  constructor({ nodes, outputs }: Graph) {
    this.#nodes = nodes;
    this.#position = new Map(nodes.map((node, index) => [node, index]));
    for (const output of outputs) {
      const name = output.target?.node.attributes.name;
      if (name !== undefined) this.#outputs.set(name, [...(this.#outputs.get(name) ?? []), output]);
    }
    /** Collectives by their results: they read until the first step that needs those. */
    const firstUse = new Map<Node, number>();
    nodes.forEach((node, index) => {
      if (isView(node)) return;
      for (const { node: root } of node.inputs.map(rootOf)) {
        if (!firstUse.has(root)) firstUse.set(root, index);
      }
    });
    let flops = 0;
    nodes.forEach((node, index) => {
      flops += costOf(node).flops;
      this.#flops.push(flops);
      if (isView(node)) return;
      const until = isCollective(node.op) ? (firstUse.get(node) ?? nodes.length - 1) : index;
      for (const { node: root } of node.inputs.map(rootOf) as Value<"leaf">[]) {
        if (root.op !== "leaf") continue;
        const { name } = root.attributes;
        this.#lastRead.set(name, Math.max(until, this.#lastRead.get(name) ?? 0));
      }
    });
  }

  /** The outputs that make a parameter's gradient. */
  gradientsOf(parameter: string): readonly GraphOutput[] {
    return this.#outputs.get(gradientName(parameter)) ?? [];
  }

  /** The position after which a parameter's gradient is whole and its weights are read no more. */
  placeOf(parameter: string): number {
    const places = this.gradientsOf(parameter).map(({ value }) => {
      const made = this.#position.get(value.node)!;
      return isUnderWay(value) ? this.#nextCollective(this.#position.get(rootOf(value).node)!) : made;
    });
    const reads = [parameter, backwardUse(parameter)].map((name) => this.#lastRead.get(name) ?? 0);
    return Math.max(0, ...places, ...reads);
  }

  /** The share of the arithmetic after a position. */
  remainingAt(place: number): number {
    const total = this.#flops.at(-1)!;
    return total === 0 ? 0 : 1 - this.#flops[place]! / total;
  }

  /** The next reduction gives this one the time until then to run beside the kernels. */
  #nextCollective(position: number): number {
    const { op } = this.#nodes[position]!;
    const next = this.#nodes.findIndex((node, index) => index > position && node.op === op);
    return next < 0 ? this.#nodes.length - 1 : next;
  }
}
