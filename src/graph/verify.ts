import { InternalError } from "../base/errors.ts";
import { sameShape } from "../base/shape.ts";
import { type Graph, leavesOf, type Node, sameValue, type TensorType, typeOf, type Value } from "./graph.ts";
import { inPlaceOutputs } from "./ops.ts";
import { formatType, inferTypes } from "./rules/shape.ts";

/**
 * Checks what every pass must keep: inputs come before their uses; every output type is what the op's shape
 * rule infers; outputs that are referred to exist; leaves and results have names of their own; targets have the
 * type of what they receive; ops that work in place are the last readers of what they overwrite.
 * @throws InternalError naming the node at fault.
 */
export function verifyGraph(graph: Graph): void {
  const names = new Map(graph.nodes.map((node, position) => [node as Node, describe(node, position)]));
  const seen = new Set<Node>();
  for (const node of graph.nodes) {
    const name = names.get(node)!;
    if (seen.has(node)) fail(graph, name, "the node is listed twice");
    for (const input of node.inputs) {
      if (!seen.has(input.node)) fail(graph, name, `its input ${input.node.op} does not come before it`);
      requireOutput(graph, input, name);
    }
    requireTypes(graph, node, name);
    seen.add(node);
  }
  verifyOutputs(graph, seen);
  verifyInPlace(graph, names);
}

function verifyOutputs(graph: Graph, present: ReadonlySet<Node>): void {
  const taken = new Set(leavesOf(graph).keys());
  for (const { name, value, target, accumulate } of graph.outputs) {
    const where = `output "${name}"`;
    if (!present.has(value.node)) fail(graph, where, `its ${value.node.op} is not in the graph`);
    requireOutput(graph, value, where);
    if (target === undefined) {
      if (accumulate === true) fail(graph, where, "it accumulates without a target");
      if (taken.has(name)) fail(graph, where, "the name is taken by a leaf or another output");
      taken.add(name);
      continue;
    }
    if (!present.has(target.node)) fail(graph, where, "its target is not in the graph");
    if (!sameType(typeOf(target), typeOf(value))) {
      fail(
        graph,
        where,
        "its target has another type",
        formatType(typeOf(value)),
        formatType(typeOf(target)),
      );
    }
  }
}

/** In-place ops must be the last to read what they overwrite, directly or through views of the same memory. */
function verifyInPlace(graph: Graph, names: ReadonlyMap<Node, string>): void {
  const memory = new Map<Node, Value>();
  // A reshape is another view of the memory of its operand.
  const rootOf = (value: Value): Value => memory.get(value.node) ?? value;
  for (const node of graph.nodes) if (node.op === "reshape") memory.set(node, rootOf(node.inputs[0]!));
  graph.nodes.forEach((node, position) => {
    for (const [, overwritten] of inPlaceOutputs[node.op] ?? []) {
      const value = rootOf(node.inputs[overwritten]!);
      const reads = (reader: Node, except?: number): boolean =>
        reader.inputs.some((input, index) => index !== except && sameValue(rootOf(input), value));
      if (reads(node, overwritten)) fail(graph, names.get(node)!, `it reads what it overwrites twice`);
      const later = graph.nodes.slice(position + 1).find((reader) => reads(reader));
      if (later !== undefined) {
        fail(
          graph,
          names.get(node)!,
          `it overwrites ${value.node.op}, which ${names.get(later)} reads later`,
        );
      }
      const kept = graph.outputs.find((output) => sameValue(rootOf(output.value), value));
      if (kept !== undefined) {
        fail(graph, names.get(node)!, `it overwrites ${value.node.op}, which output "${kept.name}" keeps`);
      }
    }
  });
}

function requireOutput(graph: Graph, value: Value, where: string): void {
  if (value.node.outputs[value.index] === undefined) {
    fail(graph, where, `${value.node.op} has no output ${value.index}`);
  }
}

function requireTypes(graph: Graph, node: Node, where: string): void {
  let inferred: readonly TensorType[];
  try {
    inferred = inferTypes(node.op, node.inputs.map(typeOf), node.attributes, node.scope.name);
  } catch (cause) {
    throw new InternalError(`graph ${graph.name}: its operands do not fit`, { where, cause });
  }
  const same =
    inferred.length === node.outputs.length &&
    inferred.every((type, index) => sameType(type, node.outputs[index]!));
  if (!same) {
    const format = (types: readonly TensorType[]): string => types.map(formatType).join(", ");
    fail(graph, where, "its types are not those of its rule", format(inferred), format(node.outputs));
  }
}

function sameType(a: TensorType, b: TensorType): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

/** `%3 matmul (model.layers.0)`: the number is the one that `printGraph` prints. */
function describe(node: Node, position: number): string {
  return `%${position} ${node.op}${node.scope.name === "" ? "" : ` (${node.scope.name})`}`;
}

function fail(graph: Graph, where: string, problem: string, expected?: string, received?: string): never {
  throw new InternalError(`graph ${graph.name}: ${problem}`, {
    where,
    ...(expected === undefined ? {} : { expected }),
    ...(received === undefined ? {} : { received }),
  });
}
