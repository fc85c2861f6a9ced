import { z } from "zod";
import { nearest } from "../../base/suggest.ts";
import { gridGroups, type SequenceGrid } from "../../parallel/context/grid.ts";
import { groupName, Mesh, type MeshAxis, type MeshSizes, meshAxes } from "../../parallel/mesh.ts";
import type { Link, Machine } from "../../runtime/planning.ts";
import {
  type ConfigProblem,
  describeValue,
  InvalidConfigError,
  locateProblems,
  valueAt,
} from "../config/problems.ts";
import { byteSize } from "../config/schema/fields.ts";
import { type ConfigPath, formatPath, readSource } from "../config/source.ts";

const link = (what: string) =>
  z
    .strictObject({
      bandwidth: byteSize().describe("Bytes a second that a rank sends, such as 25GB."),
      latency: z.number().min(0).default(0).describe("Seconds until a message arrives."),
    })
    .describe(what);

/** What a cluster file says. */
const clusterSchema = z.strictObject({
  name: z.string().optional().describe("What to call it."),
  accelerator: z
    .strictObject({
      flops: z.number().positive().describe("Operations a second of products in the dtype of training."),
      memory: byteSize().describe("Memory of a rank."),
      memory_bandwidth: byteSize().describe("Bytes a second between a rank and its memory."),
      efficiency: z.number().gt(0).max(1).default(1).describe("The share of these rates that kernels reach."),
      baseline: byteSize().default(0).describe("Memory of a rank that is not the training's."),
    })
    .describe("What each rank computes with."),
  ranks_per_node: z.int().min(1).default(1).describe("Ranks that share the fast links of a node."),
  links: z
    .strictObject({
      node: link("Between ranks of a node."),
      network: link("Between ranks of different nodes.").optional(),
    })
    .describe("What ranks send over."),
});

/** A cluster that a training is planned for. */
export type Cluster = z.output<typeof clusterSchema>;

/**
 * Reads a cluster from a YAML or JSON file.
 * @throws ConfigError where the file cannot be read; InvalidConfigError naming every wrong key with its line.
 */
export function loadCluster(path: string): Cluster {
  const source = readSource(path);
  const parsed = clusterSchema.safeParse(source.data);
  if (parsed.success) return parsed.data;
  throw new InvalidConfigError(
    path,
    locateProblems(problemsOf(parsed.error.issues, source.data), source, []),
  );
}

/** What is wrong with a cluster file, in words. */
function problemsOf(issues: readonly z.core.$ZodIssue[], data: unknown): ConfigProblem[] {
  return issues.flatMap((issue): ConfigProblem[] => {
    const path: ConfigPath = issue.path.filter((part) => typeof part !== "symbol");
    if (issue.code !== "unrecognized_keys") {
      const received = describeValue(valueAt(data, path));
      return [
        { path, summary: `${formatPath(path)} is missing or wrong`, expected: issue.message, received },
      ];
    }
    return issue.keys.map((key) => {
      const meant = nearest(key, knownKeys);
      const hint = meant === undefined ? undefined : `did you mean ${meant}?`;
      return { path: [...path, key], summary: `unknown key ${formatPath([...path, key])}`, hint, meant };
    });
  });
}

const knownKeys = [
  ...["name", "accelerator", "flops", "memory", "memory_bandwidth", "efficiency", "baseline"],
  ...["ranks_per_node", "links", "node", "network", "bandwidth", "latency"],
];

/**
 * What a rank of a cluster reaches in its kernels, and the links of every group of a mesh, and of the grid over its
 * sequence axis where there is one.
 */
export function machineOf(cluster: Cluster, sizes: MeshSizes, grid?: SequenceGrid): Machine {
  const { flops, memory_bandwidth: bandwidth, efficiency } = cluster.accelerator;
  const wide = meshAxes.filter((axis) => sizes[axis] > 1);
  const links = new Map<string, Link>();
  for (let mask = 1; mask < 2 ** wide.length; mask++) {
    const axes = wide.filter((_, index) => (mask >> index) % 2 === 1);
    links.set(groupName(axes), linkOf(cluster, sizes, axes));
  }
  const groups = grid === undefined ? [] : gridGroups(new Mesh(sizes, 0), grid).values();
  for (const { group, members } of groups) {
    links.set(group.axes, linkAcross(cluster, members.at(-1)! - members[0]!));
  }
  return { flops: flops * efficiency, bandwidth: bandwidth * efficiency, links };
}

/**
 * The link that a group over some axes of a mesh has on a cluster: the network's where it spans nodes, when ranks are
 * laid out node by node in the order of the mesh.
 */
export function linkOf(cluster: Cluster, sizes: MeshSizes, axes: readonly MeshAxis[]): Link {
  // How far apart the members of a group are at most.
  let stride = 1;
  let span = 0;
  for (const axis of meshAxes.toReversed()) {
    if (axes.includes(axis)) span += stride * (sizes[axis] - 1);
    stride *= sizes[axis];
  }
  return linkAcross(cluster, span);
}

function linkAcross({ links, ranks_per_node: perNode }: Cluster, span: number): Link {
  return span < perNode ? links.node : (links.network ?? links.node);
}
