import { type DType, encode } from "../../../src/base/dtype.ts";
import { leaf } from "../../../src/graph/build.ts";
import {
  buildGraph,
  createNode,
  type Graph,
  type GraphOutput,
  type Node,
  type Value,
} from "../../../src/graph/graph.ts";
import { inPlaceOutputs, type LeafKind, type OpAttributes, type OpName } from "../../../src/graph/ops.ts";
import type { ReferenceTensor } from "../../../src/graph/rules/reference.ts";
import type { SampleTensor } from "./draw.ts";

/** Operands and attributes on which every backend must agree about an op. */
export interface Sample<Op extends OpName> {
  readonly name: string;
  readonly inputs: readonly SampleTensor[];
  readonly attributes: OpAttributes[Op];
  /** The longest sum behind an element of a result: the bar for float32 grows with its square root. */
  readonly reduction?: number;
  /** Not for central differences: too large, or at points where the op has no derivative. */
  readonly forwardOnly?: boolean;
  /** Positions of float operands that are constants by definition, such as the frequencies of `rope`. */
  readonly constants?: readonly number[];
  /** Positions of operands that are parameters, so that backends may prepare them once. */
  readonly parameters?: readonly number[];
  /** Builds other results than those of the op alone, where these are opaque or need no operands. */
  readonly build?: (inputs: readonly Value[]) => readonly Value[];
}

/** The samples of an op for each dtype in which its kernels compute. */
export interface OpSamples<Op extends OpName> {
  readonly dtypes: readonly DType[];
  readonly make: (dtype: DType) => readonly Sample<Op>[];
}

/** A sample's leaves, named `x0`, `x1`, …, and the values that it compares. */
export interface Recorded {
  readonly leaves: readonly Value<"leaf">[];
  readonly results: readonly Value[];
}

/** Records a sample's graph. */
export function record<Op extends OpName>(op: Op, sample: Sample<Op>): Recorded {
  const overwritten = new Set((inPlaceOutputs[op] ?? []).map(([, input]) => input));
  const leaves = sample.inputs.map(({ shape, dtype }, index) => {
    const constant = sample.parameters?.includes(index) === true;
    const kind: LeafKind = overwritten.has(index) ? "state" : constant ? "parameter" : "input";
    return leaf(`x${index}`, kind, shape, dtype);
  });
  return { leaves, results: sample.build?.(leaves) ?? resultsOf(createNode(op, leaves, sample.attributes)) };
}

function resultsOf(node: Node): Value[] {
  return node.outputs.map((_, index) => ({ node, index }));
}

/** The graph of a sample: results are named `y0`, `y1`, …; what an op updates in place stays where it is. */
export function graphOf<Op extends OpName>(op: Op, sample: Sample<Op>): Graph {
  const { leaves, results } = record(op, sample);
  const outputs = results.map((value, index): GraphOutput => {
    const pair = inPlaceOutputs[op]?.find(([output]) => output === index);
    const name = `y${index}`;
    return pair === undefined ? { name, value } : { name, value, target: leaves[pair[1]]! };
  });
  const graph = buildGraph(`${op} ${sample.name}`, outputs);
  // Operands that no result reads are part of the contract all the same.
  const missing = leaves.map(({ node }) => node).filter((node) => !graph.nodes.includes(node));
  return { ...graph, nodes: [...missing, ...graph.nodes] };
}

/** The operands as the reference takes them. */
export function referenceLeaves(sample: {
  readonly inputs: readonly SampleTensor[];
}): Map<string, ReferenceTensor> {
  return new Map(
    sample.inputs.map(({ shape, values }, index) => [
      `x${index}`,
      { shape, values: Float64Array.from(values) },
    ]),
  );
}

/** The operands as memory of their dtypes. */
export function encodeInput({ dtype, values }: SampleTensor) {
  return encode(dtype, values);
}
