import { InternalError } from "../../base/errors.ts";
import type { SymbolValues } from "../../base/shape.ts";
import { type AnyNode, type Graph, type Node, typeOf } from "../../graph/graph.ts";
import { type CollectiveOp, isCollective, type OpAttributes } from "../../graph/ops.ts";
import type { ReferenceTensor } from "../../graph/rules/reference.ts";
import { type CollectiveRule, collectiveRules } from "../../graph/rules/references/collectives.ts";
import { formatType } from "../../graph/rules/shape.ts";
import { acceptResults, type EvaluateOptions, evaluateOne, tensorOf } from "./evaluate.ts";

/** A collective node of any op. */
export type CollectiveNode = { [Op in CollectiveOp]: Node<Op> }[CollectiveOp];

/** How the ranks are evaluated. */
export interface EvaluateRanksOptions extends EvaluateOptions {
  readonly symbols?: SymbolValues;
  /**
   * The ranks of a rank's group over some axes, ascending, such as
   * `(axes, rank) => new Mesh(sizes, rank).membersOf(axes.split("+") as MeshAxis[])`; all ranks where it is left out.
   */
  readonly membersOf?: (axes: string, rank: number) => readonly number[];
}

/** What a rank has done so far. */
interface RankState {
  readonly graph: Graph;
  readonly leaves: ReadonlyMap<string, ReferenceTensor>;
  readonly values: Map<object, readonly ReferenceTensor[]>;
  /** Started collectives that wait for other ranks, by axes, in order. */
  readonly started: Map<string, CollectiveNode[]>;
  next: number;
}

/** Whether a node is a collective; those of one rank too. */
export function isCollectiveNode(node: AnyNode): node is CollectiveNode {
  return isCollective(node.op);
}

/** The results of a collective for the rank whose node it is, from the operands of all ranks of its group. */
export function applyCollective(
  node: CollectiveNode,
  ranks: readonly (readonly ReferenceTensor[])[],
): ReferenceTensor[] {
  const rule = collectiveRules[node.op] as CollectiveRule<CollectiveOp>;
  return rule(ranks, node.attributes as OpAttributes[CollectiveOp]);
}

/**
 * Evaluates the graphs of N ranks side by side in float64: the oracle of what ranks compute together. Rank r runs
 * `graphs[r]` on `leaves[r]`. As in programs, a collective only starts where its node stands and is waited for by
 * its first reader, so ranks may order the collectives of different groups differently.
 * @returns each rank's outputs by name, as `evaluate` gives them.
 * @throws InternalError where the ranks of a group call different collectives, or wait for each other for ever.
 */
export function evaluateRanks(
  graphs: readonly Graph[],
  leaves: readonly ReadonlyMap<string, ReferenceTensor>[],
  options: EvaluateRanksOptions = {},
): Map<string, ReferenceTensor>[] {
  const { symbols = {} } = options;
  const everyone = graphs.map((_, rank) => rank);
  const membersOf = options.membersOf ?? (() => everyone);
  const ranks = graphs.map((graph, rank): RankState => {
    return { graph, leaves: leaves[rank]!, values: new Map(), started: new Map(), next: 0 };
  });
  for (let moved = true; moved; ) {
    moved = false;
    ranks.forEach((state) => {
      moved = advance(state, symbols, options) || moved;
    });
    ranks.forEach((state, rank) => {
      for (const axes of state.started.keys()) moved = meet(ranks, rank, axes, membersOf, options) || moved;
    });
  }
  requireFinished(ranks);
  return ranks.map(({ graph, values }) => {
    return new Map(graph.outputs.map((output) => [output.name, tensorOf(values, output.value)]));
  });
}

/** Runs a rank until it needs a collective's result that is not there. Returns whether it got anywhere. */
function advance(state: RankState, symbols: SymbolValues, options: EvaluateOptions): boolean {
  const { graph, leaves, values, started } = state;
  const before = state.next;
  for (; state.next < graph.nodes.length; state.next++) {
    const node = graph.nodes[state.next]!;
    if (node.inputs.some((input) => !values.has(input.node))) break;
    if (isCollectiveNode(node) && node.attributes.group.size > 1) {
      const { axes } = node.attributes.group;
      started.set(axes, [...(started.get(axes) ?? []), node]);
    } else {
      values.set(node, evaluateOne(node, values, leaves, symbols, options));
    }
  }
  return state.next > before;
}

/** Does the first started collective of a rank's group where every member has started it. */
function meet(
  ranks: readonly RankState[],
  rank: number,
  axes: string,
  membersOf: (axes: string, rank: number) => readonly number[],
  options: EvaluateRanksOptions,
): boolean {
  const members = membersOf(axes, rank);
  const nodes = members.map((member) => ranks[member]?.started.get(axes)?.[0]);
  if (nodes.includes(undefined)) return false;
  const calls = nodes as CollectiveNode[];
  calls.forEach((node, place) => {
    const { size, rank: own } = node.attributes.group;
    if (size !== members.length || own !== place) {
      throw new InternalError(
        `rank ${members[place]} calls ${node.op} as rank ${own} of ${size} of "${axes}", whose members are ranks ${members}`,
      );
    }
    const [first, mine] = [fingerprint(calls[0]!), fingerprint(node)];
    if (first !== mine) {
      throw new InternalError(`the ranks of "${axes}" call different collectives`, {
        expected: `${first}, as rank ${members[0]}`,
        received: `${mine} by rank ${members[place]}`,
        where: node.scope.name,
      });
    }
  });
  const operands = calls.map((node, place) => {
    return node.inputs.map((input) => tensorOf(ranks[members[place]!]!.values, input));
  });
  calls.forEach((node, place) => {
    const { values, started } = ranks[members[place]!]!;
    started.get(axes)!.shift();
    values.set(node, acceptResults(node, applyCollective(node, operands), options.symbols ?? {}, options));
  });
  return true;
}

/** What must be the same for every rank of a group. */
export function fingerprint(node: CollectiveNode): string {
  const { group: _, ...attributes } = node.attributes;
  const types = node.inputs.map((input) => formatType(typeOf(input)));
  return `${node.op} ${JSON.stringify(attributes)} of ${types.join(", ")}`;
}

function requireFinished(ranks: readonly RankState[]): void {
  const waiting = ranks.flatMap(({ started }, rank) => {
    return [...started].flatMap(([axes, nodes]) => {
      return nodes.length === 0 ? [] : [`rank ${rank} in ${nodes[0]!.op} of "${axes}"`];
    });
  });
  if (waiting.length === 0) return;
  throw new InternalError("ranks wait for others that never come", { received: waiting.join("; ") });
}
