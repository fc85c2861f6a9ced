import { type DType, decode, encode, isFloat, type TensorData } from "../../src/base/dtype.ts";
import { PhiloxStream } from "../../src/base/random.ts";
import { elementCount, resolveShape, type SymbolValues } from "../../src/base/shape.ts";
import { planProgram } from "../../src/compiler/plan/plan.ts";
import { leaf } from "../../src/graph/build.ts";
import { type AnyNode, buildGraph, createNode, type Graph, typeOf } from "../../src/graph/graph.ts";
import { collectBindings, collectSymbols } from "../../src/runtime/bind.ts";
import { loadAddon } from "../../src/runtime/native/addon.ts";
import { encodeProgram } from "../../src/runtime/native/encode.ts";
import { createReferenceBackend } from "../../src/runtime/reference/backend.ts";
import {
  applyCollective,
  type CollectiveNode,
  isCollectiveNode,
} from "../../src/runtime/reference/evaluate_ranks.ts";

/** Ways to run a graph that take no part of the compiler for granted, for tests of the compiler. */

/** Memory by name. */
export type Memory = Record<string, TensorData>;

/**
 * Memory for every leaf, with the same random numbers for every graph that has leaves of these names, and for
 * every output without a target. With `wide`, floats are in float64.
 */
export function memoryFor(graph: Graph, symbols: SymbolValues = {}, wide = false): Memory {
  const memory: Memory = {};
  for (const node of graph.nodes) {
    if (node.op !== "leaf") continue;
    const { name, dtype, shape } = node.attributes;
    const source = new PhiloxStream(
      7,
      [...name].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) >>> 0, 1),
    );
    const numbers = Array.from({ length: elementCount(resolveShape(shape, symbols)) }, () =>
      source.nextNormal(),
    );
    memory[name] = encode(wide && isFloat(dtype) ? "f64" : dtype, [...encode("f32", numbers)]);
  }
  for (const { name, value, target } of graph.outputs) {
    if (target !== undefined) continue;
    const { dtype, shape } = typeOf(value);
    const elements = elementCount(resolveShape(shape, symbols));
    memory[name] = encode(wide && isFloat(dtype) ? "f64" : dtype, new Array(elements).fill(0));
  }
  return memory;
}

/** Runs a graph by its float64 reference semantics; memory holds the results afterwards. */
export async function runReference(graph: Graph, symbols: SymbolValues = {}): Promise<Memory> {
  const memory = memoryFor(graph, symbols, true);
  await createReferenceBackend().compile(graph).run(memory, symbols);
  return memory;
}

/** Plans a graph without any pass and runs it on native kernels, `times` times. */
export async function runPlanned(
  graph: Graph,
  memory: Memory,
  symbols: SymbolValues = {},
  times = 1,
): Promise<Memory> {
  const addon = loadAddon();
  const program = planProgram(graph);
  const { words, kernels, labels } = encodeProgram(program);
  const native = addon.createProgram(
    addon.createContext(false),
    words,
    kernels,
    addon.detectedIsa(),
    program.constants,
    [],
    labels,
  );
  for (let run = 0; run < times; run++) {
    const bindings = collectBindings(program, memory, symbols);
    await addon.runProgram(native, 1, bindings, collectSymbols(program, symbols), run === 0, false, false);
  }
  return memory;
}

/**
 * Runs a graph on native kernels node by node, each in a program of its own with memory of its own: what any
 * plan must equal bit for bit.
 */
export async function runNodeByNode(graph: Graph): Promise<Memory> {
  const [memory] = await runRanksNodeByNode([graph], [memoryFor(graph)], () => [0]);
  return memory!;
}

/**
 * The same for the graphs of several ranks, which differ in attributes alone. Collectives are evaluated in float64
 * and rounded, which for sums is what kernels do where two ranks add float32.
 * @param membersOf the ranks of a rank's group
 */
export async function runRanksNodeByNode(
  graphs: readonly Graph[],
  memory: readonly Memory[],
  membersOf: (axes: string, rank: number) => readonly number[],
): Promise<readonly Memory[]> {
  const results = graphs.map(() => new Map<AnyNode, TensorData[]>());
  const operandsOf = (rank: number, { inputs }: AnyNode): TensorData[] =>
    inputs.map((input) => results[rank]!.get(input.node as AnyNode)![input.index]!);
  for (let index = 0; index < graphs[0]!.nodes.length; index++) {
    const nodes = graphs.map((graph) => graph.nodes[index]!);
    for (const [rank, node] of nodes.entries()) {
      let made: TensorData[];
      if (node.op === "leaf") made = [memory[rank]![node.attributes.name]!.slice()];
      else if (isCollectiveNode(node)) {
        const members = membersOf(node.attributes.group.axes, rank);
        const operands = members.map((member) => operandsOf(member, nodes[member]!));
        made = runCollective(node, operands);
      } else made = await runAlone(node, operandsOf(rank, node));
      results[rank]!.set(node, made);
    }
  }
  for (const [rank, graph] of graphs.entries()) {
    for (const { name, value, target, accumulate } of graph.outputs) {
      const result = results[rank]!.get(value.node as AnyNode)![value.index]!;
      const place = memory[rank]![target?.node.attributes.name ?? name]!;
      if (accumulate === true) await addInto(place, result, typeOf(value).dtype);
      else place.set(result);
    }
  }
  return memory;
}

function runCollective(node: CollectiveNode, operands: readonly TensorData[][]): TensorData[] {
  const tensors = operands.map((data) =>
    node.inputs.map((input, index) => {
      const { dtype, shape } = typeOf(input);
      return { shape: resolveShape(shape, {}), values: decode(dtype, data[index]!) };
    }),
  );
  return applyCollective(node, tensors).map(({ values }, index) => {
    return encode(node.outputs[index]!.dtype, values);
  });
}

async function runAlone(node: AnyNode, operands: readonly TensorData[]): Promise<TensorData[]> {
  if (node.op === "constant") return [node.attributes.data];
  if (node.op === "reshape") return [operands[0]!];
  const leaves = node.inputs.map((input, index) => {
    const { shape, dtype } = typeOf(input);
    return leaf(`x${index}`, "input", shape, dtype);
  });
  const copy = createNode(node.op, leaves, node.attributes);
  const outputs = copy.outputs.map((_, index) => ({ name: `y${index}`, value: { node: copy, index } }));
  const graph = buildGraph("alone", outputs);
  const memory = memoryFor(graph);
  operands.forEach((data, index) => {
    memory[`x${index}`] = data;
  });
  await runPlanned(graph, memory);
  return outputs.map(({ name }) => memory[name]!);
}

/** Adds as the `store` kernel does: in float32, rounded once. */
async function addInto(place: TensorData, addend: TensorData, dtype: DType): Promise<void> {
  const x = leaf("x", "input", [place.length], dtype);
  const y = leaf("y", "input", [place.length], dtype);
  const sum = createNode("elementwise", [x, y], { operation: "add" });
  const graph = buildGraph("add", [{ name: "sum", value: { node: sum, index: 0 } }]);
  const memory = memoryFor(graph);
  memory.x = place.slice();
  memory.y = addend;
  await runPlanned(graph, memory);
  place.set(memory.sum!);
}
