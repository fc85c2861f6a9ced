import { InternalError } from "../../base/errors.ts";
import { keyOf } from "../../compiler/plan/storage.ts";
import { add, leaf } from "../../graph/build.ts";
import {
  type AnyNode,
  type Graph,
  type GraphOutput,
  type Node,
  type TensorType,
  typeOf,
  type Value,
  withInputs,
} from "../../graph/graph.ts";
import { inScope } from "../../graph/scope.ts";
import { type SlotAssignment, stageOfSlot } from "./slots.ts";
import type { SummedOutput } from "./terms.ts";

/** The programs of a stage: `backward` is the gradient of activations alone where `weight_gradient` is apart. */
export type ProgramKind = "forward" | "backward" | "weight_gradient";

/** A program of a stage before its messages are known. */
export interface ExtractedProgram {
  readonly stage: number;
  readonly kind: ProgramKind;
  readonly graph: Graph;
  /** Stage values by name: those that it reads and those that it makes. */
  readonly reads: readonly string[];
  readonly writes: readonly string[];
}

/** A value that outlives the program that makes it. */
export interface CutValue {
  readonly name: string;
  readonly type: TensorType;
  readonly stage: number;
  readonly kind: ProgramKind;
}

/**
 * Takes programs out of a graph, the last to run first: what a program reads of an earlier one becomes a leaf in it
 * and an output of the other.
 */
export class ProgramExtractor {
  readonly values = new Map<string, CutValue>();
  readonly programs: ExtractedProgram[] = [];
  readonly #graph: Graph;
  readonly #assignment: SlotAssignment;
  /** Nodes of backward slots that only lead to gradients of parameters. */
  readonly #weightGradients = new Set<Node>();
  readonly #names = new Map<string, string>();
  readonly #required = new Map<string, Map<string, Value>>();

  constructor(graph: Graph, assignment: SlotAssignment) {
    this.#graph = graph;
    this.#assignment = assignment;
  }

  /** The program that computes a node; undefined where every program does so for itself. */
  programOf(node: Node): { stage: number; kind: ProgramKind } | undefined {
    const slot = this.#assignment.slots.get(node);
    if (slot === undefined) return undefined;
    const { stages } = this.#assignment;
    const stage = stageOfSlot(slot, stages);
    if (slot < stages) return { stage, kind: "forward" };
    return { stage, kind: this.#weightGradients.has(node) ? "weight_gradient" : "backward" };
  }

  /**
   * Sets the nodes of a stage's backward slot apart that nobody before it waits for: those that neither the stage
   * before, nor an earlier program, nor one of `kept` needs.
   */
  splitBackward(slot: number, kept: readonly Value[]): void {
    const { slots, stages } = this.#assignment;
    const inside = this.#graph.nodes.filter((node) => slots.get(node) === slot);
    const waiting = new Set<Node>(kept.map(({ node }) => node));
    const stage = stageOfSlot(slot, stages);
    for (const value of this.#required.get(`${stage} backward`)?.values() ?? []) waiting.add(value.node);
    if (stage === 0) {
      // Nobody waits for the first stage: its gradients of activations end where those of the embedding begin.
      for (const node of inside) {
        if (node.scope.block !== undefined) continue;
        for (const { node: source } of node.inputs) {
          if (source.scope.phase === "backward" && source.scope.block !== undefined) waiting.add(source);
        }
      }
    }
    for (const node of inside.toReversed()) {
      if (waiting.has(node)) for (const input of node.inputs) waiting.add(input.node);
      else this.#weightGradients.add(node);
    }
  }

  /** Takes out one program; all that read of it must have been taken before. */
  extract(stage: number, kind: ProgramKind, outputs: readonly SummedOutput[]): void {
    const required = this.#required.get(`${stage} ${kind}`) ?? new Map<string, Value>();
    if (outputs.length === 0 && required.size === 0) return;
    const roots = [...outputs.flatMap(({ terms }) => terms), ...required.values()];
    const { included, foreign } = this.#reach(stage, kind, roots);
    const replaced = new Map<string, Value>();
    const nodes: AnyNode[] = [];
    const reads: string[] = [];
    for (const [key, value] of foreign) {
      const { shape, dtype } = typeOf(value);
      const name = this.#require(value);
      reads.push(name);
      const stand = leaf(name, "input", shape, dtype);
      replaced.set(key, stand);
      nodes.push(stand.node as AnyNode);
    }
    const rebuilt = new Map<Node, Node>();
    const current = (value: Value): Value =>
      replaced.get(keyOf(value)) ?? { node: rebuilt.get(value.node) ?? value.node, index: value.index };
    for (const node of this.#graph.nodes) {
      if (!included.has(node)) continue;
      const copy = withInputs(node, node.inputs.map(current));
      if (copy !== node) rebuilt.set(node, copy);
      nodes.push(copy);
    }
    const present = new Set<Node>(nodes);
    const results: GraphOutput[] = outputs.map(({ output, terms }) => {
      const { target } = output;
      if (target !== undefined && !present.has(target.node)) {
        present.add(target.node);
        nodes.push(target.node as AnyNode);
      }
      const [first, ...rest] = terms.map(current) as [Value, ...Value[]];
      const value = rest.reduce((sum, term) => {
        const next = inScope(term.node.scope, () => add(sum, term));
        nodes.push(next.node as AnyNode);
        return next;
      }, first);
      return { ...output, value };
    });
    const writes = [...required].map(([, value]) => this.#require(value));
    [...required.values()].forEach((value, index) => {
      results.push({ name: writes[index]!, value: current(value) });
    });
    const graph = { name: `stage ${stage} ${kind}`, nodes, outputs: results };
    this.programs.push({ stage, kind, graph, reads, writes });
  }

  /** The nodes that a program computes for its roots, and what it reads of others. */
  #reach(stage: number, kind: ProgramKind, roots: readonly Value[]) {
    const included = new Set<Node>();
    const foreign = new Map<string, Value>();
    const pending = [...roots];
    for (let value = pending.pop(); value !== undefined; value = pending.pop()) {
      const { node } = value;
      if (included.has(node)) continue;
      const program = this.programOf(node);
      const own = program === undefined || (program.stage === stage && program.kind === kind);
      // A reshape costs nothing: its operand is kept instead, which others may read too.
      if (own || node.op === "reshape") {
        included.add(node);
        pending.push(...node.inputs);
      } else foreign.set(keyOf(value), value);
    }
    return { included, foreign };
  }

  #require(value: Value): string {
    const key = keyOf(value);
    const known = this.#names.get(key);
    if (known !== undefined) return known;
    const program = this.programOf(value.node);
    if (program === undefined) throw new InternalError(`${value.node.op} is passed between stages`);
    const name = `stage value ${this.#names.size}`;
    this.#names.set(key, name);
    this.values.set(name, { name, type: typeOf(value), ...program });
    const producer = `${program.stage} ${program.kind}`;
    const list = this.#required.get(producer) ?? new Map<string, Value>();
    list.set(key, value);
    this.#required.set(producer, list);
    return name;
  }
}
