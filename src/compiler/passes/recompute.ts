import {
  type AnyNode,
  createNode,
  type Graph,
  type Node,
  type Value,
  withInputs,
} from "../../graph/graph.ts";
import type { OpName } from "../../graph/ops.ts";

/**
 * Which activations the backward pass computes again (Chen et al., "Training Deep Nets with Sublinear Memory
 * Cost", arXiv 1604.06174). Blocks are the numbers given by `inBlock`.
 */
export interface RecomputePolicy {
  /** Runs of blocks of which only the inputs are kept: the rest of a run is computed again as a whole. */
  readonly segments: readonly (readonly number[])[];
  /** Blocks in which only cheap results (elementwise, norms, rotary) are computed again. */
  readonly cheap: readonly number[];
}

/** Ops whose time is small beside the products and the attention of a block. */
const cheapOps: ReadonlySet<OpName> = new Set<OpName>([
  "elementwise",
  "cast",
  "map",
  "reshape",
  "broadcast",
  "rms_norm",
  "layer_norm",
  "rope",
  "fill",
]);

/** One part of the forward pass that is run again. */
interface Segment {
  readonly tag: number;
  readonly contains: (node: Node) => boolean;
}

function segmentsOf(policy: RecomputePolicy): Segment[] {
  const whole = policy.segments.map((blocks, index): Segment => {
    const members = new Set(blocks);
    return {
      tag: index,
      contains: (node) =>
        node.scope.phase === "forward" && node.scope.block !== undefined && members.has(node.scope.block),
    };
  });
  const cheap = policy.cheap.map(
    (block, index): Segment => ({
      tag: policy.segments.length + index,
      contains: (node) =>
        node.scope.phase === "forward" && node.scope.block === block && cheapOps.has(node.op),
    }),
  );
  return [...whole, ...cheap];
}

/**
 * Copies the nodes of each segment in front of the first gradient that needs them, so that their first
 * results die in the forward pass. The copies run the same kernels on the same operands: no bit changes.
 */
export function recomputeActivations(graph: Graph, policy: RecomputePolicy): Graph {
  let current = graph;
  for (const segment of segmentsOf(policy)) current = recomputeSegment(current, segment);
  return current;
}

function recomputeSegment(graph: Graph, segment: Segment): Graph {
  const kept = new Set<string>();
  const key = (value: Value): string => `${value.node.id}.${value.index}`;
  for (const node of graph.nodes) {
    // What later parts of the forward pass read is the checkpoint between segments.
    if (node.scope.phase === "backward" || segment.contains(node)) continue;
    for (const input of node.inputs) kept.add(key(input));
  }
  for (const output of graph.outputs) kept.add(key(output.value));

  const copies = new Map<Node, AnyNode>();
  const copyOf = (value: Value, made: AnyNode[]): Value => {
    if (!segment.contains(value.node) || kept.has(key(value)) || value.node.op === "leaf") return value;
    let copy = copies.get(value.node);
    if (copy === undefined) {
      const inputs = value.node.inputs.map((input) => copyOf(input, made));
      copy = createNode(value.node.op, inputs, value.node.attributes, {
        scope: { ...value.node.scope, phase: "backward" },
        recomputed: segment.tag,
      }) as AnyNode;
      copies.set(value.node, copy);
      made.push(copy);
    }
    return { node: copy, index: value.index };
  };
  const nodes: AnyNode[] = [];
  const rebuilt = new Map<Node, AnyNode>();
  const current = (value: Value): Value => {
    const node = rebuilt.get(value.node);
    return node === undefined ? value : { node, index: value.index };
  };
  for (const node of graph.nodes) {
    const made: AnyNode[] = [];
    const inputs =
      node.scope.phase === "backward"
        ? node.inputs.map((input) => current(copyOf(input, made)))
        : node.inputs.map(current);
    nodes.push(...made);
    const next = withInputs(node, inputs);
    if (next !== node) rebuilt.set(node, next);
    nodes.push(next);
  }
  return {
    ...graph,
    nodes,
    outputs: graph.outputs.map((output) => ({ ...output, value: current(output.value) })),
  };
}
