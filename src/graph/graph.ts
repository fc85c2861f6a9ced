import type { DType } from "../base/dtype.ts";
import { InternalError } from "../base/errors.ts";
import type { Shape } from "../base/shape.ts";
import type { OpAttributes, OpName } from "./ops.ts";
import { inferTypes } from "./rules/shape.ts";
import { currentScope, type Scope } from "./scope.ts";

/** Shape and dtype of a value. */
export interface TensorType {
  readonly shape: Shape;
  readonly dtype: DType;
}

/** One result of a node. */
export interface Value<Op extends OpName = OpName> {
  readonly node: Node<Op>;
  readonly index: number;
}

/** An op applied to values. Nodes are immutable; programs are rewritten by making new ones. */
export interface Node<Op extends OpName = OpName> {
  /** Rises with creation: an order in which inputs come before their uses. */
  readonly id: number;
  readonly op: Op;
  readonly inputs: readonly Value[];
  readonly attributes: OpAttributes[Op];
  readonly outputs: readonly TensorType[];
  /** Where in the model the node was made. */
  readonly scope: Scope;
  /** Copies made for recomputation carry the number of their segment, so that they stay apart. */
  readonly recomputed: number | undefined;
}

/** A node of any op, discriminated by its name: `switch (node.op)` types the attributes. */
export type AnyNode = { [Op in OpName]: Node<Op> }[OpName];

/** A result of a graph: stored under `name`, or into the leaf `target`, added to it with `accumulate`. */
export interface GraphOutput {
  readonly name: string;
  readonly value: Value;
  /** The leaf whose memory receives the value. */
  readonly target?: Value<"leaf">;
  /** Adds to the target instead of overwriting it. */
  readonly accumulate?: boolean;
}

/** Nodes in the order in which they run, and what is kept of them. */
export interface Graph {
  readonly name: string;
  readonly nodes: readonly AnyNode[];
  readonly outputs: readonly GraphOutput[];
}

let nextId = 0;

/** Options that a rewrite carries over from the node it replaces. */
export interface NodeOptions {
  readonly scope?: Scope;
  readonly recomputed?: number | undefined;
}

/**
 * Applies an op. Shapes and dtypes of the results come from the op's shape rule.
 * @throws ShapeError naming the op and the shapes where the operands do not fit.
 */
export function createNode<Op extends OpName>(
  op: Op,
  inputs: readonly Value[],
  attributes: OpAttributes[Op],
  options: NodeOptions = {},
): Node<Op> {
  const scope = options.scope ?? currentScope();
  const outputs = inferTypes(op, inputs.map(typeOf), attributes, scope.name);
  return { id: nextId++, op, inputs, attributes, outputs, scope, recomputed: options.recomputed };
}

/** The node with other inputs of the same types; the node itself where they are the same. */
export function withInputs(node: AnyNode, inputs: readonly Value[]): AnyNode {
  if (inputs.every((input, index) => sameValue(input, node.inputs[index]!))) return node;
  return createNode(node.op, inputs, node.attributes, node) as AnyNode;
}

/** The first result of an op applied to values. */
export function apply<Op extends OpName>(
  op: Op,
  inputs: readonly Value[],
  attributes: OpAttributes[Op],
  options: NodeOptions = {},
): Value<Op> {
  return { node: createNode(op, inputs, attributes, options), index: 0 };
}

/** Shape and dtype of a value. */
export function typeOf(value: Value): TensorType {
  const type = value.node.outputs[value.index];
  if (type === undefined) throw new InternalError(`${value.node.op} has no output ${value.index}`);
  return type;
}

/** Shape of a value. */
export function shapeOf(value: Value): Shape {
  return typeOf(value).shape;
}

/** Dtype of a value. */
export function dtypeOf(value: Value): DType {
  return typeOf(value).dtype;
}

/** Whether two values are the same result of the same node. */
export function sameValue(a: Value, b: Value): boolean {
  return a.node === b.node && a.index === b.index;
}

/** Whether a value is a leaf. */
export function isLeaf(value: Value): value is Value<"leaf"> {
  return value.node.op === "leaf";
}

/** Everything that the outputs need, in order of creation. */
export function buildGraph(name: string, outputs: readonly GraphOutput[]): Graph {
  const seen = new Set<Node>();
  const pending: Node[] = [];
  for (const output of outputs) {
    pending.push(output.value.node);
    if (output.target !== undefined) pending.push(output.target.node);
  }
  for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    for (const input of node.inputs) pending.push(input.node);
  }
  const nodes = [...seen].sort((a, b) => a.id - b.id) as AnyNode[];
  return { name, nodes, outputs };
}

/** The leaves of a graph, by name. @throws InternalError where two leaves share a name. */
export function leavesOf(graph: Graph): Map<string, Node<"leaf">> {
  const leaves = new Map<string, Node<"leaf">>();
  for (const node of graph.nodes) {
    if (node.op !== "leaf") continue;
    if (leaves.has(node.attributes.name)) {
      throw new InternalError(`two leaves are named "${node.attributes.name}" in graph ${graph.name}`);
    }
    leaves.set(node.attributes.name, node);
  }
  return leaves;
}
