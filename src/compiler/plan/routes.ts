import {
  type AnyNode,
  apply,
  dtypeOf,
  type Graph,
  type GraphOutput,
  type Node,
  shapeOf,
  type Value,
} from "../../graph/graph.ts";
import { accumulatingOutputs } from "../../graph/ops.ts";
import { inScope } from "../../graph/scope.ts";
import { bytesOf, canOverwrite, hasStep, isView, keyOf, rootOf } from "./storage.ts";

/** How one output reaches its memory. */
export type OutputRoute =
  /** The kernel that makes it writes there. */
  | { readonly kind: "direct"; readonly output: GraphOutput }
  /** The kernel adds to what is there. */
  | { readonly kind: "accumulate"; readonly output: GraphOutput }
  /** A step after node `place` of the graph (-1: before all) copies or adds it. */
  | { readonly kind: "store"; readonly output: GraphOutput; readonly place: number }
  /** It is there already: updated in place. */
  | { readonly kind: "present"; readonly output: GraphOutput };

/**
 * Outputs are what their values were before any output was stored. A leaf that one output reads and another
 * overwrites is therefore copied first.
 */
export function copyOverwrittenLeaves(graph: Graph): Graph {
  const targets = new Set(
    graph.outputs.flatMap(({ target }) => (target === undefined ? [] : [keyOf(target)])),
  );
  const begun = new Set<string>();
  const copies = new Map<string, Value>();
  const outputs = graph.outputs.map((output): GraphOutput => {
    const { value, target, accumulate } = output;
    const first = target !== undefined && !begun.has(keyOf(target));
    if (target !== undefined) begun.add(keyOf(target));
    const root = rootOf(value);
    if (root.node.op !== "leaf" || !targets.has(keyOf(root))) return output;
    const stays = target !== undefined && keyOf(target) === keyOf(root) && first && accumulate !== true;
    if (stays) return output;
    const key = keyOf(value);
    let copy = copies.get(key);
    if (copy === undefined) {
      const sizes = shapeOf(value);
      copy = inScope(value.node.scope, () => apply("slice", [value], { starts: sizes.map(() => 0), sizes }));
      copies.set(key, copy);
    }
    return { ...output, value: copy };
  });
  if (copies.size === 0) return graph;
  const added = [...copies.values()].map((copy) => copy.node as AnyNode);
  return { ...graph, nodes: [...graph.nodes, ...added], outputs };
}

/** Where the memory of a graph is read and stored. */
interface Traffic {
  readonly position: ReadonlyMap<Node, number>;
  /** The last node that reads a memory in a run, by the key of its root. */
  readonly lastRead: ReadonlyMap<string, number>;
  /** The outputs whose values are in a memory. */
  readonly stored: ReadonlyMap<string, readonly GraphOutput[]>;
  /** How many outputs go to a target. */
  readonly contributions: ReadonlyMap<string, number>;
  /** By output: the last moment at which the outputs before it may still be writing to its target. */
  readonly earlier: ReadonlyMap<GraphOutput, number>;
  /** By output: when a step of its own may store it at the earliest. */
  readonly storable: ReadonlyMap<GraphOutput, number>;
}

function trafficOf(graph: Graph, prepared: ReadonlySet<Node>): Traffic {
  const position = new Map<Node, number>(graph.nodes.map((node, index) => [node, index]));
  const lastRead = new Map<string, number>();
  graph.nodes.forEach((node, index) => {
    if (isView(node) || prepared.has(node)) return;
    for (const input of node.inputs) lastRead.set(keyOf(rootOf(input)), index);
  });
  const stored = new Map<string, GraphOutput[]>();
  const contributions = new Map<string, number>();
  const latest = new Map<string, number>();
  const earlier = new Map<GraphOutput, number>();
  const storable = new Map<GraphOutput, number>();
  for (const output of graph.outputs) {
    const { value, target } = output;
    const root = keyOf(rootOf(value));
    stored.set(root, [...(stored.get(root) ?? []), output]);
    const made = hasStep(value.node) || isView(value.node) ? position.get(value.node)! : -1;
    if (target === undefined) {
      storable.set(output, made);
      continue;
    }
    const key = keyOf(target);
    contributions.set(key, (contributions.get(key) ?? 0) + 1);
    earlier.set(output, latest.get(key) ?? -1);
    // A leaf is overwritten only when nothing reads it any more, and in the order of the outputs.
    const place = Math.max(made, lastRead.get(key) ?? -1, earlier.get(output)!);
    latest.set(key, place);
    storable.set(output, place);
  }
  return { position, lastRead, stored, contributions, earlier, storable };
}

/** Chooses for every output whether its kernel can write where it belongs. */
export function routeOutputs(graph: Graph, prepared: ReadonlySet<Node>): OutputRoute[] {
  const traffic = trafficOf(graph, prepared);
  const taken = new Set<string>();
  return graph.outputs.map((output): OutputRoute => {
    const { value, target } = output;
    const root = rootOf(value);
    if (target !== undefined && keyOf(target) === keyOf(root) && output.accumulate !== true)
      return { kind: "present", output };
    const free = hasStep(root.node) && !prepared.has(root.node) && !taken.has(keyOf(root));
    const direct =
      free &&
      (output.accumulate === true
        ? canAccumulate(root, traffic)
        : target === undefined || canOverwriteTarget(output, root, target, traffic));
    if (!direct) return { kind: "store", output, place: traffic.storable.get(output)! };
    taken.add(keyOf(root));
    return { kind: output.accumulate === true ? "accumulate" : "direct", output };
  });
}

/** Whether memory is free for a kernel that makes `root`: its readers and its earlier writers are done. */
function isFree(output: GraphOutput, target: Value, root: Value, traffic: Traffic): boolean {
  const made = traffic.position.get(root.node)!;
  const fits = bytesOf(target) === bytesOf(root) && dtypeOf(target) === dtypeOf(root);
  return fits && traffic.earlier.get(output)! < made && (traffic.lastRead.get(keyOf(target)) ?? -1) < made;
}

/** Whether only this output reads the memory of a value. */
function isAlone(root: Value, traffic: Traffic): boolean {
  return !traffic.lastRead.has(keyOf(root)) && traffic.stored.get(keyOf(root))?.length === 1;
}

function canOverwriteTarget(output: GraphOutput, root: Value, target: Value, traffic: Traffic): boolean {
  // Later outputs to the same leaf would change what others still read there.
  if (traffic.contributions.get(keyOf(target))! > 1 && !isAlone(root, traffic)) return false;
  if (isFree(output, target, root, traffic)) return true;
  // The kernel itself may be the last reader, where it can write over what it reads.
  const node = root.node as AnyNode;
  const readHere = node.inputs.filter((input) => keyOf(rootOf(input)) === keyOf(target));
  return (
    traffic.lastRead.get(keyOf(target)) === traffic.position.get(node) &&
    traffic.earlier.get(output)! < traffic.position.get(node)! &&
    readHere.every((input) => canOverwrite(node, input, root.index))
  );
}

/** Whether a kernel can add all of its accumulating results to their targets: it is all of them or none. */
function canAccumulate(root: Value, traffic: Traffic): boolean {
  const indices = accumulatingOutputs[root.node.op];
  if (indices === undefined || !indices.includes(root.index)) return false;
  return indices.every((index) => {
    const value: Value = { node: root.node, index };
    const output = traffic.stored.get(keyOf(value))?.[0];
    return (
      output?.accumulate === true &&
      dtypeOf(value) === "f32" &&
      isAlone(value, traffic) &&
      isFree(output, output.target!, value, traffic)
    );
  });
}
