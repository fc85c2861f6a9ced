import { InternalError } from "../../base/errors.ts";
import {
  type AnyNode,
  type Graph,
  type GraphOutput,
  type Node,
  type Value,
  withInputs,
} from "../../graph/graph.ts";
import { inScope } from "../../graph/scope.ts";

/**
 * What becomes of one node: values for its outputs, or undefined to keep it. `inputs` are its operands in
 * the new graph. Nodes that the visitor makes run where the visited node ran, in the order in which it made them.
 */
export type Visitor = (node: AnyNode, inputs: readonly Value[]) => readonly Value[] | undefined;

/** Walks a graph in order and replaces nodes; the order of what is kept stays. */
export function rewrite(graph: Graph, visit: Visitor): Graph {
  const replaced = new Map<Node, readonly Value[]>();
  const emitted = new Set<Node>();
  const nodes: AnyNode[] = [];
  const lookUp = (value: Value): Value => replaced.get(value.node)?.[value.index] ?? value;
  // What a visitor made runs in the order in which it was made: the order of creation is one of use.
  const emit = (results: readonly Node[]): void => {
    const made: Node[] = [];
    const collect = (node: Node): void => {
      if (emitted.has(node)) return;
      emitted.add(node);
      for (const input of node.inputs) collect(input.node);
      made.push(node);
    };
    for (const node of results) collect(node);
    nodes.push(...(made.sort((a, b) => a.id - b.id) as AnyNode[]));
  };
  for (const node of graph.nodes) {
    const inputs = node.inputs.map(lookUp);
    const results = inScope(node.scope, () => visit(node, inputs));
    if (results === undefined) {
      const kept = withInputs(node, inputs);
      if (kept !== node)
        replaced.set(
          node,
          kept.outputs.map((_, index) => ({ node: kept, index })),
        );
      emit([kept]);
    } else {
      if (results.length !== node.outputs.length) {
        throw new InternalError(`${node.op} was replaced by ${results.length} values`, {
          expected: `${node.outputs.length}, one for each of its results`,
        });
      }
      replaced.set(node, results);
      emit(results.map((result) => result.node));
    }
  }
  const outputs = graph.outputs.map((output): GraphOutput => ({ ...output, value: lookUp(output.value) }));
  return { ...graph, nodes, outputs };
}

/** Who reads what in a graph. */
export interface Uses {
  /** The nodes that read any result of a node, each once, in order. */
  readonly readers: ReadonlyMap<Node, readonly AnyNode[]>;
  /** Reads of one result, outputs of the graph included. */
  count(value: Value): number;
  /** Whether a result is an output of the graph. */
  isOutput(value: Value): boolean;
}

/** Counts the uses of every result in a graph. */
export function usesOf(graph: Graph): Uses {
  const readers = new Map<Node, AnyNode[]>();
  const counts = new Map<Node, number[]>();
  const stored = new Map<Node, Set<number>>();
  const count = ({ node, index }: Value): void => {
    const list = counts.get(node) ?? [];
    list[index] = (list[index] ?? 0) + 1;
    counts.set(node, list);
  };
  for (const node of graph.nodes) {
    for (const input of node.inputs) {
      count(input);
      const list = readers.get(input.node);
      if (list === undefined) readers.set(input.node, [node]);
      else if (list.at(-1) !== node) list.push(node);
    }
  }
  for (const { value } of graph.outputs) {
    count(value);
    stored.set(value.node, (stored.get(value.node) ?? new Set()).add(value.index));
  }
  return {
    readers,
    isOutput: ({ node, index }) => stored.get(node)?.has(index) === true,
    count: ({ node, index }) => counts.get(node)?.[index] ?? 0,
  };
}
