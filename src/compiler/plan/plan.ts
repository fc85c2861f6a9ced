import type { TensorData } from "../../base/dtype.ts";
import { InternalError, ShapeError } from "../../base/errors.ts";
import { formatShape } from "../../base/shape.ts";
import {
  type AnyNode,
  type Graph,
  type GraphOutput,
  type Node,
  typeOf,
  type Value,
} from "../../graph/graph.ts";
import { inPlaceOutputs } from "../../graph/ops.ts";
import { align, layOutArena } from "./arena.ts";
import { parameterWork } from "./parameter_work.ts";
import type { Binding, KernelStep, Program, ProgramTensor, Step, Storage, StoreStep } from "./program.ts";
import { copyOverwrittenLeaves, type OutputRoute, routeOutputs } from "./routes.ts";
import { bytesOf, canOverwrite, hasStep, keyOf, rootOf } from "./storage.ts";

/** A step before its tensors have places. */
interface Draft {
  readonly node: AnyNode | undefined;
  readonly reads: readonly Value[];
  readonly writes: readonly Value[];
  readonly store?: GraphOutput;
  readonly accumulate: boolean;
}

/**
 * Places every value of a graph in memory and lists its steps. Values whose lives do not meet share memory,
 * reshapes share that of their operand, and a `map` may write over an operand that dies with it. Outputs are
 * written where they belong by the kernel that makes them wherever nothing is read there afterwards.
 */
export function planProgram(recorded: Graph): Program {
  const graph = copyOverwrittenLeaves(recorded);
  refuseWritesToConstants(graph);
  const prepared = parameterWork(graph);
  const routes = routeOutputs(graph, prepared);
  const bindings = listBindings(graph);
  const bindingIndex = new Map(bindings.map((binding, index) => [binding.name, index]));
  const steps = draftSteps(graph.nodes, (node) => hasStep(node) && !prepared.has(node), routes);
  const prepareSteps = draftSteps(graph.nodes, (node) => hasStep(node) && prepared.has(node), []);
  const constants: TensorData[] = [];
  const storages = new Map<string, Storage>();

  for (const node of graph.nodes) {
    const key = keyOf({ node, index: 0 });
    if (node.op === "leaf")
      storages.set(key, { kind: "binding", binding: bindingIndex.get(node.attributes.name)! });
    if (node.op === "constant")
      storages.set(key, { kind: "constant", constant: constants.push(node.attributes.data) - 1 });
  }
  for (const route of routes) {
    if (route.kind !== "direct" && route.kind !== "accumulate") continue;
    const { output } = route;
    const binding = bindingIndex.get(
      output.target === undefined ? output.name : output.target.node.attributes.name,
    )!;
    storages.set(keyOf(rootOf(output.value)), { kind: "binding", binding });
  }
  let preparedBytes = 0;
  for (const draft of prepareSteps) {
    for (const value of draft.writes) {
      const key = keyOf(rootOf(value));
      if (storages.has(key)) continue;
      storages.set(key, { kind: "prepared", offset: preparedBytes });
      preparedBytes += align(bytesOf(value));
    }
  }
  const arenaBytes = placeInArena(steps, storages);
  const tensors = new TensorTable(storages);
  const finish = (draft: Draft): Step => finishStep(draft, tensors, bindingIndex);
  return {
    name: graph.name,
    symbols: listSymbols(graph),
    prepare: prepareSteps.map(finish),
    steps: steps.map(finish),
    tensors: tensors.list,
    bindings,
    constants,
    arenaBytes,
    preparedBytes,
  };
}

function listBindings(graph: Graph): Binding[] {
  const bindings: Binding[] = [];
  for (const node of graph.nodes) {
    if (node.op !== "leaf") continue;
    const { name, kind, shape, dtype } = node.attributes;
    bindings.push({ name, role: kind, shape, dtype });
  }
  for (const output of graph.outputs) {
    if (output.target !== undefined) continue;
    bindings.push({ name: output.name, role: "output", ...typeOf(output.value) });
  }
  return bindings;
}

function listSymbols(graph: Graph): { name: string; bound: number }[] {
  const symbols = new Map<string, number>();
  for (const node of graph.nodes) {
    for (const { shape } of node.outputs) {
      for (const dimension of shape) {
        if (typeof dimension === "number") continue;
        const known = symbols.get(dimension.symbol);
        if (known !== undefined && known !== dimension.bound) {
          throw new ShapeError(
            "symbol_conflict",
            `symbol "${dimension.symbol}" has two bounds in one program`,
            {
              received: `${known} and ${dimension.bound}, in ${formatShape(shape)}`,
            },
          );
        }
        symbols.set(dimension.symbol, dimension.bound);
      }
    }
  }
  return [...symbols].map(([name, bound]) => ({ name, bound }));
}

/** An op that works in place on a constant would change the program itself. */
function refuseWritesToConstants(graph: Graph): void {
  for (const node of graph.nodes) {
    for (const [, input] of inPlaceOutputs[node.op] ?? []) {
      if (rootOf(node.inputs[input]!).node.op !== "constant") continue;
      throw new InternalError(`${node.op} updates a constant in place`, { where: node.scope.name });
    }
  }
}

/** The steps of the nodes that `belongs` picks, each followed by the stores that are due then. */
function draftSteps(
  nodes: readonly AnyNode[],
  belongs: (node: AnyNode) => boolean,
  routes: readonly OutputRoute[],
): Draft[] {
  const accumulated = new Set<Node>();
  const due = new Map<number, Draft[]>();
  for (const route of routes) {
    const { output } = route;
    if (route.kind === "accumulate") accumulated.add(rootOf(output.value).node);
    if (route.kind !== "store") continue;
    const accumulate = output.accumulate === true;
    // What is added to is read, too.
    const reads = output.target !== undefined && accumulate ? [output.value, output.target] : [output.value];
    const draft: Draft = { node: undefined, reads, writes: [], store: output, accumulate };
    const present = due.get(route.place);
    if (present === undefined) due.set(route.place, [draft]);
    else present.push(draft);
  }
  const drafts = [...(due.get(-1) ?? [])];
  nodes.forEach((node, position) => {
    if (belongs(node)) {
      const writes = node.outputs.map((_, index) => ({ node, index }));
      drafts.push({ node, reads: node.inputs, writes, accumulate: accumulated.has(node) });
    }
    drafts.push(...(due.get(position) ?? []));
  });
  return drafts;
}

/** Finds the lives of values without a place yet, lays them out, and records their places. */
function placeInArena(steps: readonly Draft[], storages: Map<string, Storage>): number {
  const blockOf = new Map<string, number>();
  const blocks: { bytes: number; first: number; last: number }[] = [];
  const lastUse = new Map<string, number>();
  steps.forEach((draft, index) => {
    for (const value of [...draft.reads, ...draft.writes]) lastUse.set(keyOf(rootOf(value)), index);
  });
  steps.forEach((draft, index) => {
    for (const value of draft.writes) {
      const root = rootOf(value);
      const key = keyOf(root);
      if (storages.has(key) || blockOf.has(key)) continue;
      const last = lastUse.get(key) ?? index;
      const overwritten = draft.reads.find((operand) => {
        const operandKey = keyOf(rootOf(operand));
        return (
          draft.node !== undefined &&
          canOverwrite(draft.node, operand, value.index) &&
          blockOf.has(operandKey) &&
          lastUse.get(operandKey) === index &&
          blocks[blockOf.get(operandKey)!]!.last === index
        );
      });
      if (overwritten !== undefined) {
        const block = blockOf.get(keyOf(rootOf(overwritten)))!;
        blocks[block]!.last = last;
        blockOf.set(key, block);
      } else {
        blockOf.set(key, blocks.push({ bytes: bytesOf(root), first: index, last }) - 1);
      }
    }
  });
  const layout = layOutArena(blocks);
  for (const [key, block] of blockOf) storages.set(key, { kind: "arena", offset: layout.offsets[block]! });
  return layout.bytes;
}

/** The tensors of a program: one for each (place, shape, dtype). */
class TensorTable {
  readonly list: ProgramTensor[] = [];
  readonly #storages: ReadonlyMap<string, Storage>;
  readonly #indices = new Map<string, number>();

  constructor(storages: ReadonlyMap<string, Storage>) {
    this.#storages = storages;
  }

  add(tensor: ProgramTensor): number {
    const key = JSON.stringify(tensor);
    const known = this.#indices.get(key);
    if (known !== undefined) return known;
    const index = this.list.push(tensor) - 1;
    this.#indices.set(key, index);
    return index;
  }

  of(value: Value): number {
    return this.add({ ...typeOf(value), storage: this.#storages.get(keyOf(rootOf(value)))! });
  }
}

function finishStep(draft: Draft, tensors: TensorTable, bindings: ReadonlyMap<string, number>): Step {
  const inputs = draft.reads.map((value) => tensors.of(value));
  if (draft.node === undefined) {
    const { value, target, name, accumulate } = draft.store!;
    const binding = bindings.get(target === undefined ? name : target.node.attributes.name)!;
    const output = tensors.add({ ...typeOf(target ?? value), storage: { kind: "binding", binding } });
    const step: StoreStep = {
      kind: "store",
      input: inputs[0]!,
      output,
      accumulate: accumulate === true,
      scope: value.node.scope.name,
    };
    return step;
  }
  const { op, attributes, scope } = draft.node;
  const outputs = draft.writes.map((value) => tensors.of(value));
  const step: KernelStep = {
    kind: "kernel",
    op,
    attributes,
    inputs,
    outputs,
    accumulate: draft.accumulate,
    scope: scope.name,
  };
  return step;
}
