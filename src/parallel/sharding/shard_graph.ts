import { type Shape, sameShape } from "../../base/shape.ts";
import { leaf as recordLeaf } from "../../graph/build.ts";
import type { AnyNode, Graph, GraphOutput, Node, Value } from "../../graph/graph.ts";
import { buildGraph, shapeOf } from "../../graph/graph.ts";
import { inScope } from "../../graph/scope.ts";
import type { Mesh, MeshAxis } from "../mesh.ts";
import { type Assignment, assignLayouts, type Given, solvingOrder } from "./assign.ts";
import { type CostWeights, defaultWeights } from "./conversion.ts";
import { type Conversion, LocalValues, localNode, type Request } from "./emit.ts";
import { type Layout, layoutKey, localShape, withPartial } from "./layout.ts";

/** How a batch leaf of the whole graph is given to a rank. */
export interface InputPart {
  /** The leaf in the rank's graph. */
  readonly name: string;
  /** The leaf of the whole graph. */
  readonly source: string;
  readonly layout: Layout;
  /** The shape of the rank's part. */
  readonly shape: Shape;
}

/** What sharding gives for one rank. */
export interface ShardedGraph {
  readonly graph: Graph;
  readonly inputs: readonly InputPart[];
  /** How every node of the whole graph is computed. */
  readonly assignment: Assignment;
  /** What is exchanged between nodes, in order. */
  readonly conversions: readonly Conversion[];
}

/** How to shard. */
export interface ShardOptions {
  /** Axes to cut over; all of the mesh by default. */
  readonly axes?: readonly MeshAxis[];
  readonly weights?: CostWeights;
  /** Leaves attention to the tokens of each rank of the sequence axis: a later pass gets it the others. */
  readonly cutsAttentionTokens?: boolean;
  /** Whether what lies between the matrices may be cut by tokens over `tensor`: true by default. */
  readonly cutsTokensOverTensor?: boolean;
}

/**
 * Rewrites a graph over whole tensors into one rank's graph over its parts (Xu et al., "GSPMD", arXiv 2105.04663;
 * Lepikhin et al., "GShard", arXiv 2006.16668): chooses how every node is computed and inserts the collectives
 * between them. Every rank of the mesh gets the same collectives in the same order.
 */
export function shardGraph(graph: Graph, mesh: Mesh, given: Given, options: ShardOptions = {}): ShardedGraph {
  const axes = solvingOrder(mesh.sizes, options.axes ?? (["sequence", "tensor"] as const));
  const weights = options.weights ?? defaultWeights;
  const { cutsAttentionTokens = false, cutsTokensOverTensor = true } = options;
  const all = { ...given, cutsAttentionTokens, cutsTokensOverTensor };
  const assignment = assignLayouts(graph, axes, mesh.sizes, all, weights);
  const emitter = new Emitter(graph, mesh, given, assignment);
  return { ...emitter.emit(), assignment };
}

class Emitter {
  readonly #graph: Graph;
  readonly #mesh: Mesh;
  readonly #given: Given;
  readonly #assignment: Assignment;
  readonly #values: LocalValues;
  readonly #inputs: InputPart[] = [];
  readonly #needs = new Map<Node, Request[]>();

  constructor(graph: Graph, mesh: Mesh, given: Given, assignment: Assignment) {
    this.#graph = graph;
    this.#mesh = mesh;
    this.#given = given;
    this.#assignment = assignment;
    this.#values = new LocalValues(mesh);
  }

  emit(): Omit<ShardedGraph, "assignment"> {
    this.#collectNeeds();
    for (const node of this.#graph.nodes) inScope(node.scope, () => this.#emitNode(node));
    const layouts = this.#graph.outputs.map((output) => this.#given.output(output));
    const requests = this.#graph.outputs.map(({ value }, index) => ({ value, layout: layouts[index]! }));
    const values = new Array<Value>(requests.length);
    for (const places of this.#outputsTogether()) {
      const local = this.#values.inLayouts(places.map((place) => requests[place]!));
      places.forEach((place, index) => {
        values[place] = local[index]!;
      });
    }
    const outputs = this.#graph.outputs.map((output, index): GraphOutput => {
      const value = values[index]!;
      if (output.target === undefined) return { ...output, value };
      return { ...output, value, target: this.#target(output.target, layouts[index]!) };
    });
    const graph = buildGraph(this.#graph.name, outputs);
    return { graph, inputs: this.#inputs, conversions: this.#values.conversions };
  }

  /** Outputs that may travel in one bucket: where stages of a pipeline are cut apart later, only those of one module. */
  #outputsTogether(): number[][] {
    const places = [...this.#graph.outputs.keys()];
    if (this.#mesh.sizes.pipeline === 1) return [places];
    const modules = Map.groupBy(places, (place) => {
      const { scope } = this.#graph.outputs[place]!.value.node;
      return scope.block === undefined ? `output ${place}` : `block ${scope.block}`;
    });
    return [...modules.values()];
  }

  /** In which layouts the results of each node are read. */
  #collectNeeds(): void {
    for (const [node, plan] of this.#assignment) {
      node.inputs.forEach((value, position) => {
        const list = this.#needs.get(value.node) ?? [];
        list.push({ value, layout: plan.inputs[position]! });
        this.#needs.set(value.node, list);
      });
    }
    for (const output of this.#graph.outputs) {
      if (output.value.node.op !== "leaf") continue;
      const request = { value: output.value, layout: this.#given.output(output) };
      this.#needs.set(output.value.node, [...(this.#needs.get(output.value.node) ?? []), request]);
    }
  }

  #emitNode(node: AnyNode): void {
    if (node.op === "leaf") {
      this.#emitLeaf(node);
      return;
    }
    const plan = this.#assignment.get(node)!;
    const inputs = this.#values.inLayouts(
      node.inputs.map((value, position) => ({ value, layout: plan.inputs[position]! })),
      node,
    );
    const shape = localShape(node.outputs[0]!.shape, plan.outputs[0]!, this.#mesh.sizes);
    const local = localNode(node, inputs, shape);
    node.outputs.forEach((_, index) => {
      this.#values.define({ node, index }, plan.outputs[index]!, { node: local, index });
    });
    // Several results that must be exchanged go together.
    if (node.outputs.length > 1) this.#values.inLayouts(this.#needs.get(node) ?? [], node);
  }

  #emitLeaf(node: Node<"leaf">): void {
    const value: Value = { node, index: 0 };
    const layout = this.#given.leaf(node);
    if (layout !== undefined) {
      this.#values.define(value, layout, this.#localLeaf(node, node.attributes.name, layout));
      return;
    }
    // A batch lies whole in the memory of each rank's caller, who gives every part that is read.
    const layouts = new Map<string, Layout>();
    for (const need of this.#needs.get(node) ?? []) {
      const part = withPartial(need.layout, []);
      layouts.set(layoutKey(part), part);
    }
    const several = layouts.size > 1;
    for (const [key, part] of layouts) {
      const plain = !several || part.dimensions.every((axes) => axes.length === 0);
      const name = plain ? node.attributes.name : `${node.attributes.name} [${key}]`;
      const local = this.#localLeaf(node, name, part);
      this.#values.define(value, part, local);
      this.#inputs.push({ name, source: node.attributes.name, layout: part, shape: shapeOf(local) });
    }
  }

  #localLeaf(node: Node<"leaf">, name: string, layout: Layout): Value<"leaf"> {
    const { kind, shape, dtype } = node.attributes;
    const local = localShape(shape, layout, this.#mesh.sizes);
    if (name === node.attributes.name && sameShape(local, shape)) return { node, index: 0 };
    return recordLeaf(name, kind, local, dtype);
  }

  #target(target: Value<"leaf">, layout: Layout): Value<"leaf"> {
    return this.#localLeaf(target.node, target.node.attributes.name, withPartial(layout, []));
  }
}
