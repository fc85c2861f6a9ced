import { apply, type Node, type Value } from "./graph.ts";

/**
 * How a tensor is to lie on the mesh, as its author says: for each dimension the axis that cuts it, or several from
 * the outermost to the innermost, or null where every rank has all of it.
 */
export type ShardingSpecification = readonly (string | readonly string[] | null)[];

// What nodes are annotated with; a node is immutable, so this says something about it and changes nothing.
const annotations = new WeakMap<Node, ShardingSpecification>();

/** The same tensor from here on, laid out as said: a hint to the sharding pass, nothing to anyone else. */
export function annotate(value: Value, specification: ShardingSpecification): Value {
  const { shape } = value.node.outputs[value.index]!;
  const marked = apply("reshape", [value], { shape });
  annotations.set(marked.node, specification);
  return marked;
}

/** What a node's result was annotated with. */
export function annotationOf(node: Node): ShardingSpecification | undefined {
  return annotations.get(node);
}

/** Keeps the annotation of a node on the one that takes its place. */
export function moveAnnotation(from: Node, to: Node): void {
  const present = annotations.get(from);
  if (present !== undefined) annotations.set(to, present);
}

/** How the parameters of a name lie on the mesh. */
export interface ParameterSharding {
  /** Matches the full name of a parameter, as in a Hugging Face checkpoint. */
  readonly pattern: RegExp;
  readonly specification: ShardingSpecification;
  /**
   * What the cut dimensions are made of and may not be cut through, such as heads. Where these do not divide among
   * the ranks, the parameter stays whole if `optional`, and is refused otherwise.
   */
  readonly units?: { readonly name: string; readonly count: number; readonly optional?: boolean };
}

/** Sharding as data beside a model: the first pattern that matches a parameter counts; others stay whole. */
export type ShardingTable = readonly ParameterSharding[];
