import { bytesPerElement, type TensorData, viewOf } from "../../base/dtype.ts";
import { RunError } from "../../base/errors.ts";
import { elementCount, maximumElements, resolveShape, type SymbolValues } from "../../base/shape.ts";
import { quantizeParameters } from "../../compiler/passes/quantize_parameters.ts";
import { passesForTiles, runPasses } from "../../compiler/pipeline.ts";
import { type Graph, leavesOf, type Node, type TensorType, typeOf, type Value } from "../../graph/graph.ts";
import { inPlaceOutputs, type RankGroup } from "../../graph/ops.ts";
import { graphCost } from "../../graph/rules/cost.ts";
import type { ReferenceTensor } from "../../graph/rules/reference.ts";
import { verifyGraph } from "../../graph/verify.ts";
import type { Backend, Bindings, CompileOptions, Executable, MemoryPlan, RunOptions } from "../backend.ts";
import { collectGroups } from "../bind_groups.ts";
import type { ProcessGroup } from "../group.ts";
import { boundMemory, readBinding, writeBinding } from "./bindings.ts";
import { evaluateNodes, tensorOf } from "./evaluate.ts";
import { evaluateInGroups } from "./evaluate_in_groups.ts";
import { isCollectiveNode } from "./evaluate_ranks.ts";

/**
 * The backend that says what programs mean: node by node, in float64 TypeScript, as `referenceRules` have
 * it. Results are rounded only when they are stored into what the caller bound; memory of float leaves and
 * outputs may be bound as Float64Array to keep full precision. It runs on the event loop and is meant for
 * tests and tiny models. Collectives exchange their operands over the process groups: as many reference ranks, in any
 * processes, compute what the ranks' programs are to give. Unlike kernels it refuses ids, targets and slots that are out of range.
 */
export function createReferenceBackend(): Backend {
  const queue = new RunQueue();
  return {
    name: "reference",
    allocate: (dtype, elements) => viewOf(dtype, new ArrayBuffer(elements * bytesPerElement(dtype))),
    compile: (graph, options = {}) => compileReference(graph, options, queue),
  };
}

function compileReference(
  recorded: Graph,
  { quantized, tiles, passes = [], groups: given }: CompileOptions,
  queue: RunQueue,
): Executable {
  verifyGraph(recorded);
  const graph = runPasses(quantized === undefined ? recorded : quantizeParameters(recorded, quantized), [
    ...passesForTiles(tiles),
    ...passes,
  ]);
  const leaves = leavesOf(graph);
  const updates = inPlaceUpdates(graph);
  const groups = groupsOf(graph, given);
  let disposed = false;

  const run = async (bindings: Bindings, symbols: SymbolValues, options: RunOptions): Promise<void> => {
    const memory = new Map<string, TensorData>();
    const inputs = new Map<string, ReferenceTensor>();
    for (const [name, node] of leaves) {
      const data = boundMemory(bindings, name, typeOf({ node, index: 0 }), symbols);
      const shape = resolveShape(node.attributes.shape, symbols);
      memory.set(name, data);
      inputs.set(name, { shape, values: readBinding(data, node.attributes.dtype, elementCount(shape)) });
    }
    for (const output of graph.outputs) {
      if (output.target !== undefined) continue;
      memory.set(output.name, boundMemory(bindings, output.name, typeOf(output.value), symbols));
    }
    const values =
      groups.size === 0
        ? evaluateNodes(graph, inputs, symbols, options)
        : await evaluateInGroups(graph, inputs, groups, symbols, options);
    for (const { leaf, value } of updates) {
      const { name, dtype } = leaf.attributes;
      writeBinding(memory.get(name)!, dtype, tensorOf(values, value).values);
    }
    for (const { name, value, target, accumulate } of graph.outputs) {
      const result = tensorOf(values, value).values;
      const data = memory.get(target?.node.attributes.name ?? name)!;
      const dtype = target?.node.attributes.dtype ?? typeOf(value).dtype;
      const sum = accumulate === true ? readBinding(data, dtype, result.length) : undefined;
      writeBinding(data, dtype, sum === undefined ? result : sum.map((present, i) => present + result[i]!));
    }
  };

  const executable: Executable = {
    memory: planMemory(graph),
    flops: graphCost(graph).flops,
    run: async (bindings, symbols = {}, options = {}) => {
      if (disposed) throw new RunError("disposed", `program ${graph.name} was disposed and cannot run`);
      const started = performance.now();
      await queue.add(() => run(bindings, symbols, options));
      const seconds = (performance.now() - started) / 1000;
      return { seconds, kernelSeconds: seconds };
    },
    bind: (bindings) => ({
      run: async (symbols, options) => await executable.run(bindings, symbols, options),
    }),
    invalidateParameters: () => {},
    dispose: () => {
      disposed = true;
    },
  };
  return executable;
}

/** Runs of one backend execute one after another, also where one waits for other ranks. */
class RunQueue {
  #last: Promise<void> | undefined;

  /** Calls `work` when what was added before has ended: at once where nothing has to be waited for. */
  async add(work: () => Promise<void>): Promise<void> {
    const before = this.#last;
    const own = before === undefined ? work() : before.then(work, work);
    this.#last = own;
    try {
      await own;
    } finally {
      if (this.#last === own) this.#last = undefined;
    }
  }
}

/** The process groups of a graph's collectives, by axes. */
function groupsOf(
  graph: Graph,
  given: ReadonlyMap<string, ProcessGroup> | undefined,
): ReadonlyMap<string, ProcessGroup> {
  const named = new Map<string, RankGroup>();
  for (const node of graph.nodes) {
    if (!isCollectiveNode(node)) continue;
    const { group } = node.attributes;
    if (group.size > 1) named.set(group.axes, group);
  }
  const groups = collectGroups(graph.name, [...named.values()], given);
  return new Map([...named.keys()].map((axes, index) => [axes, groups[index]!]));
}

/**
 * What the run keeps at its peak: float64 copies of every value until the run ends (the arena), constants
 * in their own dtype, and what the caller binds in its declared dtypes. Nothing is prepared.
 */
function planMemory(graph: Graph): MemoryPlan {
  const bytes = (type: TensorType): number => maximumElements(type.shape) * bytesPerElement(type.dtype);
  let arena = 0;
  let constants = 0;
  let bound = 0;
  for (const node of graph.nodes) {
    for (const output of node.outputs) arena += 8 * maximumElements(output.shape);
    if (node.op === "constant") constants += bytes(node.outputs[0]!);
    if (node.op === "leaf") bound += bytes(node.outputs[0]!);
  }
  for (const output of graph.outputs) {
    if (output.target === undefined) bound += bytes(typeOf(output.value));
  }
  return { arena, prepared: 0, constants, bound, scratch: 0 };
}

interface InPlaceUpdate {
  readonly leaf: Node<"leaf">;
  readonly value: Value;
}

/** Results that are the memory of a leaf, the last one for each leaf. */
function inPlaceUpdates(graph: Graph): InPlaceUpdate[] {
  const owners = new Map<Node, (Node<"leaf"> | undefined)[]>();
  const updates = new Map<Node<"leaf">, Value>();
  for (const node of graph.nodes) {
    if (node.op === "leaf") owners.set(node, [node]);
    for (const [output, input] of inPlaceOutputs[node.op] ?? []) {
      const overwritten = node.inputs[input]!;
      const leaf = owners.get(overwritten.node)?.[overwritten.index];
      if (leaf === undefined) continue;
      const own = owners.get(node) ?? [];
      own[output] = leaf;
      owners.set(node, own);
      updates.set(leaf, { node, index: output });
    }
  }
  return [...updates].map(([leaf, value]) => ({ leaf, value }));
}
