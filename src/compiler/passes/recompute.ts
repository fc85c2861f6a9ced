import {
  type AnyNode,
  createNode,
  type Graph,
  type Node,
  type Value,
  withInputs,
} from "../../graph/graph.ts";
import { inPlaceOutputs, type OpName } from "../../graph/ops.ts";
import { parameterWork } from "../plan/parameter_work.ts";
import { keyOf } from "../plan/storage.ts";

/**
 * Which activations the backward pass computes again (Chen et al., "Training Deep Nets with Sublinear Memory
 * Cost", arXiv 1604.06174). Blocks are the numbers given by `inBlock`.
 */
export interface RecomputePolicy {
  /** Runs of blocks of which only the inputs are kept: the rest of a run is computed again as a whole. */
  readonly segments: readonly (readonly number[])[];
  /** Blocks in which only cheap results (elementwise, norms, rotary, gates) are computed again. */
  readonly cheap: readonly number[];
  /**
   * Whether the results of attention are kept all the same: computing runs again takes no attention then (Gu et al.,
   * "LoongTrain", arXiv 2406.18485, selective checkpoint++).
   */
  readonly keepsAttention?: boolean;
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
  "swiglu",
  "fill",
]);

/** The results of attention, and of the exchange that brings them back to the tokens of a rank. */
function isAttention(node: Node): boolean {
  if (node.op === "all_to_all") return node.inputs.some((input) => isAttention(input.node));
  return node.op === "attention" || node.op === "attention_block";
}

/** One part of the forward pass that is run again. */
interface Segment {
  readonly tag: number;
  /** Whether a node is in the blocks of this part. */
  readonly inside: (node: Node) => boolean;
  /** Whether a node inside may be computed again. */
  readonly repeats: (node: Node) => boolean;
}

function segmentsOf(policy: RecomputePolicy): Segment[] {
  const inBlocks =
    (blocks: readonly number[]) =>
    ({ scope }: Node): boolean =>
      scope.phase === "forward" && scope.block !== undefined && blocks.includes(scope.block);
  const whole = policy.segments.map(
    (blocks, index): Segment => ({
      tag: index,
      inside: inBlocks(blocks),
      repeats: (node) => policy.keepsAttention !== true || !isAttention(node),
    }),
  );
  const cheap = policy.cheap.map(
    (block, index): Segment => ({
      tag: policy.segments.length + index,
      inside: inBlocks([block]),
      repeats: (node) => cheapOps.has(node.op),
    }),
  );
  return [...whole, ...cheap];
}

/**
 * Copies the nodes of each segment in front of the first gradient that needs them, so that their first
 * results die in the forward pass. What other parts of the forward pass read of a segment is kept: it is the
 * checkpoint from which the next one starts. The copies run the same kernels on the same operands: no bit
 * changes.
 */
export function recomputeActivations(graph: Graph, policy: RecomputePolicy): Graph {
  let current = graph;
  for (const segment of segmentsOf(policy)) current = recomputeSegment(current, segment);
  return current;
}

function keptValues(graph: Graph, segment: Segment): Set<string> {
  const kept = new Set<string>();
  for (const node of graph.nodes) {
    if (node.scope.phase === "backward" || segment.inside(node)) continue;
    for (const input of node.inputs) kept.add(keyOf(input));
  }
  for (const output of graph.outputs) kept.add(keyOf(output.value));
  return kept;
}

function recomputeSegment(graph: Graph, segment: Segment): Graph {
  const kept = keptValues(graph, segment);
  // What follows from parameters alone is computed once and stays: a copy would be kept a second time.
  const prepared = parameterWork(graph);
  const repeated = (value: Value): boolean =>
    value.node.op !== "leaf" &&
    inPlaceOutputs[value.node.op] === undefined &&
    segment.inside(value.node) &&
    segment.repeats(value.node) &&
    !prepared.has(value.node) &&
    !kept.has(keyOf(value));
  const rebuilt = new Map<Node, AnyNode>();
  const current = (value: Value): Value => {
    const node = rebuilt.get(value.node);
    return node === undefined ? value : { node, index: value.index };
  };
  const copies = new Map<Node, AnyNode>();
  const copyOf = (value: Value, made: AnyNode[]): Value => {
    if (!repeated(value)) return current(value);
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
  for (const node of graph.nodes) {
    const made: AnyNode[] = [];
    const backward = node.scope.phase === "backward";
    const inputs = node.inputs.map((input) => (backward ? copyOf(input, made) : current(input)));
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
