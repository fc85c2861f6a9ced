import type { TensorData } from "../../src/base/dtype.ts";
import { elementCount, resolveShape } from "../../src/base/shape.ts";
import { runPasses } from "../../src/compiler/pipeline.ts";
import { type Graph, leavesOf, type Node, typeOf, type Value } from "../../src/graph/graph.ts";
import { inPlaceOutputs } from "../../src/graph/ops.ts";
import type { ReferenceTensor } from "../../src/graph/rules/reference.ts";
import { Mesh, type MeshSizes } from "../../src/parallel/mesh.ts";
import type { Backend, Executable } from "../../src/runtime/backend.ts";
import type { ProcessGroup } from "../../src/runtime/group.ts";
import { createReferenceBackend } from "../../src/runtime/reference/backend.ts";
import { readBinding, writeBinding } from "../../src/runtime/reference/bindings.ts";
import { acceptResults, evaluateOne, tensorOf } from "../../src/runtime/reference/evaluate.ts";
import { applyCollective, isCollectiveNode } from "../../src/runtime/reference/evaluate_ranks.ts";
import { joinMesh, type Rank } from "../../src/train/rank.ts";

/** A rank and a backend that computes in float64 with the other ranks of its world. */
export interface LockstepRank {
  readonly rank: Rank;
  readonly backend: Backend;
}

/** Where the members of one group meet: the k-th call of each with those of the others. */
class Meeting {
  readonly #size: number;
  readonly #calls: { items: unknown[]; resolve: ((items: unknown[]) => void)[] }[] = [];
  readonly #next: number[];

  constructor(size: number) {
    this.#size = size;
    this.#next = Array.from({ length: size }, () => 0);
  }

  async meet(rank: number, item: unknown): Promise<unknown[]> {
    const index = this.#next[rank]!++;
    this.#calls[index] ??= { items: [], resolve: [] };
    const call = this.#calls[index];
    call.items[rank] = item;
    return await new Promise((resolve) => {
      call.resolve.push(resolve);
      if (call.resolve.length === this.#size) for (const settle of call.resolve) settle(call.items);
    });
  }
}

/** Ranks of one process whose collectives are evaluated by their reference rules. */
export async function lockstepWorld(sizes: Partial<MeshSizes>): Promise<LockstepRank[]> {
  const size = new Mesh(sizes, 0).worldSize;
  const meetings = new Map<string, Meeting>();
  const groupOf = (
    name: string,
    members: readonly number[],
    world: number,
  ): ProcessGroup & { meeting: Meeting } => {
    const key = `${name}:${members.join()}`;
    const meeting = meetings.get(key) ?? new Meeting(members.length);
    meetings.set(key, meeting);
    const rank = members.indexOf(world);
    return {
      name,
      members,
      size: members.length,
      rank,
      meeting,
      exchange: (bytes: Uint8Array) => meeting.meet(rank, bytes.slice()),
      subgroup: async (part: string, places: readonly number[]) => groupOf(part, places, world),
      abort: () => {},
    } as unknown as ProcessGroup & { meeting: Meeting };
  };
  const everyone = Array.from({ length: size }, (_, rank) => rank);
  return await Promise.all(
    everyone.map(async (number) => {
      const rank = await joinMesh(groupOf("world", everyone, number), new Mesh(sizes, number));
      return { rank, backend: lockstepBackend() };
    }),
  );
}

function lockstepBackend(): Backend {
  const reference = createReferenceBackend();
  return {
    ...reference,
    compile: (recorded, options = {}) => {
      const graph = runPasses(recorded, options.passes ?? []);
      const plain = reference.compile(graph);
      if (!graph.nodes.some(isCollectiveNode)) return plain;
      const executable: Executable = {
        ...plain,
        run: async (bindings, symbols = {}) => {
          await run(
            graph,
            bindings,
            symbols,
            options.groups as ReadonlyMap<string, { meeting: Meeting } & ProcessGroup>,
          );
          return { seconds: 0, kernelSeconds: 0 };
        },
      };
      return executable;
    },
  };
}

async function run(
  graph: Graph,
  bindings: Readonly<Record<string, TensorData>>,
  symbols: Readonly<Record<string, number>>,
  groups: ReadonlyMap<string, { meeting: Meeting } & ProcessGroup>,
): Promise<void> {
  const leaves = new Map<string, ReferenceTensor>();
  for (const [name, { attributes }] of leavesOf(graph)) {
    const shape = resolveShape(attributes.shape, symbols);
    leaves.set(name, { shape, values: readBinding(bindings[name]!, attributes.dtype, elementCount(shape)) });
  }
  const values = new Map<object, readonly ReferenceTensor[]>();
  for (const node of graph.nodes) {
    if (isCollectiveNode(node)) {
      const group = groups.get(node.attributes.group.axes)!;
      const operands = node.inputs.map((input) => tensorOf(values, input));
      const all = (await group.meeting.meet(group.rank, operands)) as ReferenceTensor[][];
      values.set(node, acceptResults(node, applyCollective(node, all), symbols, {}));
    } else values.set(node, evaluateOne(node, values, leaves, symbols, {}));
  }
  for (const { leaf, value } of inPlaceUpdates(graph)) {
    writeBinding(bindings[leaf.attributes.name]!, leaf.attributes.dtype, tensorOf(values, value).values);
  }
  for (const { name, value, target, accumulate } of graph.outputs) {
    const result = tensorOf(values, value).values;
    const data = bindings[target?.node.attributes.name ?? name]!;
    const dtype = target?.node.attributes.dtype ?? typeOf(value).dtype;
    const sum = accumulate === true ? readBinding(data, dtype, result.length) : undefined;
    writeBinding(data, dtype, sum === undefined ? result : sum.map((present, i) => present + result[i]!));
  }
}

function inPlaceUpdates(graph: Graph): { leaf: Node<"leaf">; value: Value }[] {
  return graph.nodes.flatMap((node) =>
    (inPlaceOutputs[node.op] ?? []).map(([index, input]) => {
      return { leaf: node.inputs[input]!.node as Node<"leaf">, value: { node, index } };
    }),
  );
}
