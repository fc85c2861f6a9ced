import type { SymbolValues } from "../../base/shape.ts";
import { rootOf } from "../../compiler/plan/storage.ts";
import type { Graph, Node } from "../../graph/graph.ts";
import { communicationOf } from "../../graph/rules/communication.ts";
import { costOf } from "../../graph/rules/cost.ts";
import type { CommunicationCost, Machine, RunTime } from "../planning.ts";

/** What the collectives of a graph send in one run. */
export function communicationCost(graph: Graph, symbols?: SymbolValues): CommunicationCost {
  const total = new Map<string, { bytes: number; messages: number }>();
  for (const node of graph.nodes) {
    const sent = communicationOf(node, symbols);
    if (sent === undefined) continue;
    const present = total.get(sent.axes) ?? { bytes: 0, messages: 0 };
    total.set(sent.axes, {
      bytes: present.bytes + sent.bytes,
      messages: present.messages + sent.messages,
    });
  }
  return total;
}

/** Plays one run of a graph, in its order, on a machine: kernels on one lane, each group's collectives on another. */
export function simulate(graph: Graph, machine: Machine, symbols?: SymbolValues): RunTime {
  const finished = new Map<Node, number>();
  const free = new Map<string, number>();
  const communication = new Map<string, number>();
  let now = 0;
  let compute = 0;
  let exposed = 0;
  const waitFor = (node: Node): void => {
    const end = finished.get(node);
    if (end === undefined || end <= now) return;
    exposed += end - now;
    now = end;
  };
  for (const node of graph.nodes) {
    const sent = communicationOf(node, symbols);
    for (const input of node.inputs) waitFor(rootOf(input).node);
    if (sent === undefined) {
      const { flops, bytes } = costOf(node, symbols);
      const seconds = Math.max(flops / machine.flops, bytes / machine.bandwidth);
      compute += seconds;
      now += seconds;
      continue;
    }
    const link = machine.links?.get(sent.axes);
    const seconds = link === undefined ? 0 : sent.messages * link.latency + sent.bytes / link.bandwidth;
    const end = Math.max(now, free.get(sent.axes) ?? 0) + seconds;
    free.set(sent.axes, end);
    finished.set(node, end);
    communication.set(sent.axes, (communication.get(sent.axes) ?? 0) + seconds);
  }
  for (const node of finished.keys()) waitFor(node);
  return { seconds: now, compute, communication, exposed };
}
