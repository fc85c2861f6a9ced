import type { AnyNode, GraphOutput, Node, Value } from "../../graph/graph.ts";
import { type CollectiveOp, isCollective } from "../../graph/ops.ts";
import type { OutputRoute } from "./routes.ts";
import { bytesOf, hasStep, keyOf, rootOf } from "./storage.ts";

/** A collective of several ranks. */
export type CollectiveNode = { [Op in CollectiveOp]: Node<Op> }[CollectiveOp];

/** A step before its tensors have places. */
export interface Draft {
  readonly kind: "kernel" | "store" | "start" | "wait";
  /** The node of a kernel, start or wait. */
  readonly node: AnyNode | undefined;
  readonly reads: readonly Value[];
  readonly writes: readonly Value[];
  /** What a store stores. */
  readonly store?: GraphOutput;
  readonly accumulate: boolean;
  /** Of a start and its wait. */
  readonly ticket?: number;
}

/** A collective between its start and its wait. */
interface Pending {
  readonly start: Draft;
  readonly group: string;
  readonly bytes: number;
  readonly reads: ReadonlySet<string>;
  readonly writes: ReadonlySet<string>;
  /** Stores of its results that nobody is in a hurry for. */
  readonly stores: Draft[];
}

/**
 * How many times the operands of the largest collective of a group may be held by those of that group that were
 * started and not waited for: what is being sent and what is being made (the two buckets of overlapped reductions in
 * Rajbhandari et al., "ZeRO", arXiv 1910.02054).
 */
const heldOperands = 2;

/**
 * The steps of the nodes that `belongs` picks, each followed by the stores that are due then. A collective is started
 * where its node stands. It is waited for before the first step that reads its results or writes what it reads, when
 * those of its group hold too much memory, or at the end.
 */
export function draftSteps(
  nodes: readonly AnyNode[],
  belongs: (node: AnyNode) => boolean,
  routes: readonly OutputRoute[],
): Draft[] {
  const drafter = new Drafter(
    nodes.filter((node) => hasStep(node) && belongs(node)),
    routes,
  );
  drafter.stores(-1);
  nodes.forEach((node, position) => {
    if (hasStep(node) && belongs(node)) drafter.node(node);
    drafter.stores(position);
  });
  drafter.finish();
  return drafter.drafts;
}

class Drafter {
  readonly drafts: Draft[] = [];
  /** The nodes of these steps: what others make is there before and after. */
  readonly #made: ReadonlySet<Node>;
  readonly #accumulated = new Set<Node>();
  /** The leaf whose memory a value is written to directly, by the key of its root. */
  readonly #direct = new Map<string, string>();
  /** By position in the graph. */
  readonly #due = new Map<number, Draft[]>();
  /** How many outputs go to a leaf. */
  readonly #contributions = new Map<string, number>();
  /** The most bytes of operands of a collective, by group. */
  readonly #largest = new Map<string, number>();
  readonly #pending: Pending[] = [];
  #tickets = 0;

  constructor(nodes: readonly AnyNode[], routes: readonly OutputRoute[]) {
    this.#made = new Set(nodes);
    for (const node of nodes) {
      if (!isCollectiveNode(node)) continue;
      const { axes } = node.attributes.group;
      this.#largest.set(axes, Math.max(this.#largest.get(axes) ?? 0, this.#operandBytes(node)));
    }
    for (const route of routes) {
      const { output } = route;
      const { value, target } = output;
      if (target !== undefined) {
        const key = keyOf(target);
        this.#contributions.set(key, (this.#contributions.get(key) ?? 0) + 1);
        if (route.kind === "direct" || route.kind === "accumulate")
          this.#direct.set(keyOf(rootOf(value)), key);
      }
      if (route.kind === "accumulate") this.#accumulated.add(rootOf(value).node);
      if (route.kind !== "store") continue;
      const draft = storeOf(output);
      const present = this.#due.get(route.place);
      if (present === undefined) this.#due.set(route.place, [draft]);
      else present.push(draft);
    }
  }

  /** Drafts the step of a node. */
  node(node: AnyNode): void {
    const writes = node.outputs.map((_, index) => ({ node, index }));
    if (!isCollectiveNode(node)) {
      const accumulate = this.#accumulated.has(node);
      this.#add({ kind: "kernel", node, reads: node.inputs, writes, accumulate });
      return;
    }
    const group = node.attributes.group.axes;
    const bytes = this.#operandBytes(node);
    this.#makeRoom(group, bytes);
    const ticket = this.#tickets++;
    const start: Draft = { kind: "start", node, reads: node.inputs, writes, accumulate: false, ticket };
    this.#add(start);
    const [reads, written] = [start.reads, writes].map((values) => new Set(values.map(this.#memoryOf)));
    this.#pending.push({ start, group, bytes, reads: reads!, writes: written!, stores: [] });
  }

  /** Drafts the stores that are due after the node at a position, or puts them off until after a wait. */
  stores(position: number): void {
    for (const draft of this.#due.get(position) ?? []) {
      const { value, target } = draft.store!;
      const memory = this.#memoryOf(value);
      const maker = this.#pending.find(({ writes }) => writes.has(memory));
      const only = target === undefined || this.#contributions.get(keyOf(target)) === 1;
      if (maker !== undefined && only) maker.stores.push(draft);
      else this.#add(draft);
    }
  }

  /** Waits for all that is under way. */
  finish(): void {
    while (this.#pending.length > 0) this.#wait(this.#pending[0]!);
  }

  #add(draft: Draft): void {
    const reads = draft.reads.map(this.#memoryOf);
    const writes = draft.writes.map(this.#memoryOf);
    if (draft.store?.target !== undefined) writes.push(keyOf(draft.store.target));
    for (const pending of [...this.#pending]) {
      const collides =
        reads.some((memory) => pending.writes.has(memory)) ||
        writes.some((memory) => pending.writes.has(memory) || pending.reads.has(memory));
      // Another's wait may have been followed by this one's.
      if (collides && this.#pending.includes(pending)) this.#wait(pending);
    }
    this.drafts.push(draft);
  }

  #wait(pending: Pending): void {
    const { start, stores } = pending;
    this.#pending.splice(this.#pending.indexOf(pending), 1);
    // Until then nobody else may have the memory of its operands and results.
    this.drafts.push({ ...start, kind: "wait", reads: [...start.reads, ...start.writes], writes: [] });
    for (const store of stores) this.#add(store);
  }

  /** Bytes that the operands of a collective hold in a run, beside what the caller and the program hold anyway. */
  #operandBytes(node: AnyNode): number {
    const roots = new Map(node.inputs.map((input) => [keyOf(rootOf(input)), rootOf(input)]));
    return [...roots.values()]
      .filter((root) => this.#made.has(root.node))
      .reduce((sum, root) => sum + bytesOf(root), 0);
  }

  #makeRoom(group: string, bytes: number): void {
    const limit = heldOperands * this.#largest.get(group)!;
    for (;;) {
      const held = this.#pending.filter((pending) => pending.group === group && pending.bytes > 0);
      const total = held.reduce((sum, pending) => sum + pending.bytes, bytes);
      if (held.length === 0 || total <= limit) return;
      this.#wait(held[0]!);
    }
  }

  /** What two values have in common that lie in the same memory. */
  readonly #memoryOf = (value: Value): string => {
    const key = keyOf(rootOf(value));
    return this.#direct.get(key) ?? key;
  };
}

/** Whether a node with a step is a collective. */
function isCollectiveNode(node: AnyNode): node is CollectiveNode {
  return isCollective(node.op);
}

function storeOf(output: GraphOutput): Draft {
  const { value, target } = output;
  const accumulate = output.accumulate === true;
  // What is added to is read, too.
  const reads = target !== undefined && accumulate ? [value, target] : [value];
  return { kind: "store", node: undefined, reads, writes: [], store: output, accumulate };
}
