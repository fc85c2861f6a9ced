import { bytesPerElement } from "../../base/dtype.ts";
import { maximumElements, sameShape } from "../../base/shape.ts";
import { type AnyNode, dtypeOf, type Node, shapeOf, type Value } from "../../graph/graph.ts";
import { inPlaceOutputs, isCollective, type OpName, type RankGroup } from "../../graph/ops.ts";

/** A value's identity as a key of maps. */
export function keyOf(value: Value): string {
  return `${value.node.id}.${value.index}`;
}

/** The value whose memory a value shares: reshapes are views, in-place results are their operand. */
export function rootOf(value: Value): Value {
  let root = value;
  for (;;) {
    const { node, index } = root;
    const pair = inPlaceOutputs[node.op]?.find(([output]) => output === index);
    if (pair !== undefined) root = node.inputs[pair[1]]!;
    else if (isView(node)) root = node.inputs[index]!;
    else return root;
  }
}

/** Bytes of a value with every symbol at its bound. */
export function bytesOf(value: Value): number {
  return maximumElements(shapeOf(value)) * bytesPerElement(dtypeOf(value));
}

/** Nodes whose results are the memory of their operands: reshapes, and collectives of a single rank. */
export function isView(node: Node): boolean {
  if (node.op === "reshape") return true;
  return isCollective(node.op) && (node.attributes as { readonly group: RankGroup }).group.size === 1;
}

/** Nodes without a step: their results are memory of the caller, of the program, or views. */
export function hasStep(node: Node): boolean {
  return node.op !== "leaf" && node.op !== "constant" && !isView(node);
}

/**
 * Ops that have read what they need of an operand of their results' shape before they write there. All their
 * results are of one type.
 */
const overwriting: ReadonlySet<OpName> = new Set<OpName>(["map", "rope", "swiglu", "swiglu_gradient"]);

/** The operand to which a result adds, block by block of the keys: it may lie where that lay. */
function addedTo(node: AnyNode, output: number): Value | undefined {
  if (node.op === "attention_block") return node.inputs[6 + output];
  if (node.op !== "attention_block_gradient") return undefined;
  const first = node.attributes.sums === "queries" ? 0 : 1;
  return output < first ? undefined : node.inputs[9 + output - first];
}

/**
 * Whether a node may write a result over an operand that dies with it: no other operand of that memory can
 * differ in shape but for leading ones. An `all_reduce` may for the operand that the result is the sum of.
 */
export function canOverwrite(node: AnyNode, operand: Value, output: number): boolean {
  const type = node.outputs[output]!;
  const sum = addedTo(node, output);
  if (sum !== undefined) return keyOf(sum) === keyOf(operand) && dtypeOf(operand) === type.dtype;
  if (dtypeOf(operand) !== type.dtype || !sameShape(shapeOf(operand), type.shape)) return false;
  if (node.op !== "all_reduce") return overwriting.has(node.op);
  const key = keyOf(rootOf(operand));
  return node.inputs.every((input, position) => (keyOf(rootOf(input)) === key) === (position === output));
}
