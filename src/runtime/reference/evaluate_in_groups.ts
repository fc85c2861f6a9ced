import { CommunicationError } from "../../base/errors.ts";
import { elementCount, type SymbolValues } from "../../base/shape.ts";
import type { Graph } from "../../graph/graph.ts";
import type { ReferenceTensor } from "../../graph/rules/reference.ts";
import type { ProcessGroup } from "../group.ts";
import { acceptResults, type EvaluateOptions, evaluateOne, type NodeValues, tensorOf } from "./evaluate.ts";
import { applyCollective, type CollectiveNode, fingerprint, isCollectiveNode } from "./evaluate_ranks.ts";

/**
 * Computes every node of one rank's graph in float64, together with the other ranks of its groups: operands of
 * collectives are exchanged whole. As in programs, a collective starts where its node stands and is waited for by its
 * first reader.
 * @param groups by axes: every group of the graph with more than one rank
 * @throws CommunicationError where ranks call different collectives, or one is lost.
 */
export async function evaluateInGroups(
  graph: Graph,
  leaves: ReadonlyMap<string, ReferenceTensor>,
  groups: ReadonlyMap<string, ProcessGroup>,
  symbols: SymbolValues = {},
  options: EvaluateOptions = {},
): Promise<NodeValues> {
  const values = new Map<object, readonly ReferenceTensor[]>();
  const started = new Map<object, Promise<readonly ReferenceTensor[]>>();
  const settle = async (node: object): Promise<void> => {
    const pending = started.get(node);
    if (pending === undefined) return;
    values.set(node, await pending);
    started.delete(node);
  };
  for (const node of graph.nodes) {
    for (const input of node.inputs) await settle(input.node);
    if (isCollectiveNode(node) && node.attributes.group.size > 1) {
      const group = groups.get(node.attributes.group.axes)!;
      const operands = node.inputs.map((input) => tensorOf(values, input));
      const results = exchange(node, operands, group).then((all) =>
        acceptResults(node, applyCollective(node, all), symbols, options),
      );
      // Whoever waits for it is told; another failure may come first.
      results.catch(() => {});
      started.set(node, results);
    } else values.set(node, evaluateOne(node, values, leaves, symbols, options));
  }
  for (const node of [...started.keys()]) await settle(node);
  return values;
}

/** The operands of all ranks of the group. */
async function exchange(
  node: CollectiveNode,
  operands: readonly ReferenceTensor[],
  group: ProcessGroup,
): Promise<ReferenceTensor[][]> {
  const call = fingerprint(node);
  const answers = await group.exchange(encodeOperands(call, operands));
  return answers.map((bytes, rank) => {
    const theirs = decodeOperands(bytes);
    if (theirs.call !== call) {
      throw new CommunicationError("collective_mismatch", "ranks call different collectives", {
        expected: `${call}, as rank ${group.rank}`,
        received: `${theirs.call} by rank ${rank}`,
        where: `group ${group.name}`,
      });
    }
    return theirs.operands;
  });
}

/** The length of a header, the header, and from the next multiple of eight bytes on the values. */
function encodeOperands(call: string, operands: readonly ReferenceTensor[]): Uint8Array {
  const text = JSON.stringify({ call, shapes: operands.map(({ shape }) => shape) });
  const header = new TextEncoder().encode(text);
  const elements = operands.reduce((sum, { values }) => sum + values.length, 0);
  let offset = valuesOffset(header.length);
  const message = new Uint8Array(offset + 8 * elements);
  new Float64Array(message.buffer, 0, 1)[0] = header.length;
  message.set(header, 8);
  for (const { values } of operands) {
    message.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), offset);
    offset += values.byteLength;
  }
  return message;
}

/** Where the values begin. */
function valuesOffset(headerLength: number): number {
  return 8 + Math.ceil(headerLength / 8) * 8;
}

function decodeOperands(message: Uint8Array): { call: string; operands: ReferenceTensor[] } {
  // A copy begins where float64 may.
  const { buffer } = message.slice();
  const [length] = new Float64Array(buffer, 0, 1) as unknown as [number];
  const { call, shapes } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length))) as {
    readonly call: string;
    readonly shapes: readonly (readonly number[])[];
  };
  let offset = valuesOffset(length);
  const operands = shapes.map((shape): ReferenceTensor => {
    const values = new Float64Array(buffer, offset, elementCount(shape));
    offset += values.byteLength;
    return { shape, values };
  });
  return { call, operands };
}
