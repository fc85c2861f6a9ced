import { formatBytes } from "../../base/bytes.ts";
import { type AnyNode, typeOf } from "../../graph/graph.ts";
import { formatType } from "../../graph/rules/shape.ts";
import type { MeshAxis } from "../mesh.ts";
import type { Conversion } from "./emit.ts";
import { formatLayout } from "./layout.ts";
import type { ShardedGraph } from "./shard_graph.ts";

/** What passes over one axis of the mesh in one run, with every symbol at its bound. */
export interface AxisTraffic {
  readonly axis: MeshAxis;
  readonly collectives: number;
  /** Bytes that a rank sends. */
  readonly bytes: number;
}

/** The traffic of each axis that has any. */
export function trafficOf({ conversions }: Pick<ShardedGraph, "conversions">): AxisTraffic[] {
  const found = new Map<MeshAxis, { collectives: number; bytes: number }>();
  for (const { step, bytes } of conversions) {
    if (bytes === 0) continue;
    const present = found.get(step.axis) ?? { collectives: 0, bytes: 0 };
    found.set(step.axis, { collectives: present.collectives + 1, bytes: present.bytes + bytes });
  }
  return [...found].map(([axis, traffic]) => ({ axis, ...traffic }));
}

/**
 * What sharding chose and why, as text: what each axis does to each node that it takes part in, each exchange with
 * what it is for and what it sends, and the traffic of each axis.
 */
export function explainSharding(sharded: ShardedGraph): string {
  const choices: string[] = [];
  for (const [node, plan] of sharded.assignment) {
    if (plan.choices.length === 0 || !isTelling(node as AnyNode)) continue;
    const parts = plan.choices.map(({ axis, label }) =>
      label === undefined
        ? `${axis} passes sums on`
        : `${axis} cuts ${label.replace(/^d(?=\d)/, "dimension ")}`,
    );
    choices.push(`  ${describe(node as AnyNode)}: ${parts.join(", ")}`);
  }
  const exchanges = sharded.conversions.filter(({ bytes }) => bytes > 0).map(describeConversion);
  const traffic = trafficOf(sharded).map(
    ({ axis, collectives, bytes }) =>
      `  ${axis}: ${collectives} collectives, ${formatBytes(bytes)} sent by a rank`,
  );
  return ["nodes", ...choices, "exchanges", ...exchanges, "traffic", ...traffic].join("\n");
}

/** Elementwise operations and changes of shape follow from what they stand between. */
function isTelling({ op }: AnyNode): boolean {
  return !["elementwise", "cast", "reshape", "broadcast", "fill", "slice", "pad_into"].includes(op);
}

function describe(node: AnyNode): string {
  const place = [node.scope.name, node.scope.phase === "backward" ? "backward" : ""];
  const where = place.filter((part) => part !== "").join(", ");
  return where === "" ? node.op : `${node.op} (${where})`;
}

function describeConversion({ step, values, reader, bytes }: Conversion): string {
  const what = values.map(({ value, from, to }) => {
    return `${formatType(typeOf(value))} ${formatLayout(from)} -> ${formatLayout(to)}`;
  });
  const whom = reader === undefined ? "the results" : describe(reader as AnyNode);
  return `  ${step.kind} over ${step.axis} for ${whom}: ${what.join("; ")}: ${formatBytes(bytes)}`;
}
