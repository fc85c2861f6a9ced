import type { AnyNode, Graph, Node } from "../../graph/graph.ts";

/**
 * When each node of a graph of loss and gradients runs in a pipeline of `stages`: slot s is the forward of stage s,
 * slot 2 * stages - 1 - s its backward, so that data only flow to the same or a later slot. Nodes that follow from
 * inputs alone or from parameters alone have no slot: every program that reads them computes them for itself.
 */
export interface SlotAssignment {
  readonly stages: number;
  readonly slots: ReadonlyMap<Node, number>;
}

/** The stage that runs a slot. */
export function stageOfSlot(slot: number, stages: number): number {
  return slot < stages ? slot : 2 * stages - 1 - slot;
}

/** The slot in which a stage runs backward. */
export function backwardSlot(stage: number, stages: number): number {
  return 2 * stages - 1 - stage;
}

/**
 * Gives each node the slot of its block, or a later one where its operands come later. Outside of blocks, what comes
 * before all blocks goes with the first stage and what comes after all of them with the last, in both directions.
 * @param stageOfBlock the stage of each numbered block.
 */
export function assignSlots(
  graph: Graph,
  stages: number,
  stageOfBlock: (block: number) => number,
): SlotAssignment {
  const floating = floatingNodes(graph);
  const anchored = graph.nodes.filter((node) => !floating.has(node));
  const { after, before } = blockOrder(anchored);
  const preferred = (node: Node): number => {
    const { scope } = node;
    const forward = scope.phase === "forward";
    if (scope.block !== undefined) {
      const stage = stageOfBlock(scope.block);
      return forward ? stage : backwardSlot(stage, stages);
    }
    const first = forward ? 0 : stages;
    return after.has(node) && !before.has(node) ? first + stages - 1 : first;
  };
  const slots = new Map<Node, number>();
  for (const node of anchored) {
    const inputs = node.inputs.map((input) => slots.get(input.node) ?? 0);
    const [common] = inputs;
    // Terms of one gradient are added up before they are sent to the stage that wants their sum.
    if (addsGradients(node) && inputs.every((slot) => slot === common && slot >= stages)) {
      slots.set(node, common!);
      continue;
    }
    slots.set(node, Math.max(preferred(node), ...inputs));
  }
  return { stages, slots };
}

function addsGradients(node: AnyNode): boolean {
  const { op, scope, recomputed, attributes } = node;
  if (op !== "elementwise" || scope.phase !== "backward" || recomputed !== undefined) return false;
  return attributes.operation === "add";
}

/** Nodes that depend on inputs alone, on parameters alone or on nothing. */
function floatingNodes(graph: Graph): Set<Node> {
  const floating = new Set<Node>();
  const readsInput = new Set<Node>();
  const readsMemory = new Set<Node>();
  for (const node of graph.nodes) {
    if (node.op === "leaf") {
      (node.attributes.kind === "input" ? readsInput : readsMemory).add(node);
      floating.add(node);
      continue;
    }
    const sources = node.inputs.map((input) => input.node);
    if (!sources.every((source) => floating.has(source))) continue;
    const input = sources.some((source) => readsInput.has(source));
    const memory = sources.some((source) => readsMemory.has(source));
    if (input && memory) continue;
    floating.add(node);
    if (input) readsInput.add(node);
    if (memory) readsMemory.add(node);
  }
  return floating;
}

/** Which nodes come after, and which before, a numbered block of their own phase. */
function blockOrder(nodes: readonly AnyNode[]): { after: Set<Node>; before: Set<Node> } {
  const after = new Set<Node>();
  const before = new Set<Node>();
  for (const phase of ["forward", "backward"] as const) {
    const ofPhase = nodes.filter(({ scope }) => scope.phase === phase);
    const blocks = new Set<Node>(ofPhase.filter(({ scope }) => scope.block !== undefined));
    for (const node of ofPhase) {
      if (node.inputs.some((input) => blocks.has(input.node) || after.has(input.node))) after.add(node);
    }
    const reached = new Set<Node>();
    for (const node of ofPhase.toReversed()) {
      if (reached.has(node)) before.add(node);
      if (!reached.has(node) && !blocks.has(node)) continue;
      for (const input of node.inputs) reached.add(input.node);
    }
  }
  return { after, before };
}
