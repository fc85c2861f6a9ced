import { describe, expect, test } from "vitest";
import { leaf, multiply, reduce } from "../../graph/build.ts";
import { gradients } from "../../graph/gradient.ts";
import { type AnyNode, buildGraph, type Graph, type GraphOutput } from "../../graph/graph.ts";
import type { CollectiveOp, RankGroup } from "../../graph/ops.ts";
import { isCollective } from "../../graph/ops.ts";
import { verifyGraph } from "../../graph/verify.ts";
import { Mesh } from "../mesh.ts";
import { partitionParameters } from "./partition.ts";
import { partitionStates } from "./pass.ts";
import { defaultZeroSettings, type ZeroSettings } from "./settings.ts";

const names = ["w1", "w2", "w3"];
const elements = 128;

/** The sum of x w1 w2 w3 and its gradients: w1, w2 and w3 are read forward, w3 and w2 backward. */
function record(): Graph {
  const weights = names.map((name) => leaf(name, "parameter", [elements], "f32"));
  const product = weights.reduce(multiply, leaf("x", "input", [elements], "f32"));
  const loss = reduce("sum", product, [0]);
  const outputs = gradients(loss, weights).map((value, index): GraphOutput => {
    const target = leaf(`gradient ${names[index]}`, "state", [elements], "f32");
    return { name: `gradient ${names[index]}`, value, target };
  });
  return buildGraph("train", [{ name: "loss", value: loss }, ...outputs]);
}

function partition(settings: Partial<ZeroSettings>, ranks = 4): Graph {
  const zero = { ...defaultZeroSettings, persistenceThreshold: 0, ...settings };
  const box = { starts: [0], sizes: [elements] };
  const locals = names.map((name) => {
    return { name, shape: [elements], box, reducedOver: ["data" as const], replicatedOver: [] };
  });
  const parameters = partitionParameters(locals, new Mesh({ data: ranks }, 1), zero, () => false);
  const find = (name: string) => parameters.find(({ local }) => local.name === name);
  const leaves = {
    parameterOf: find,
    gradientOf: (name: string) => find(name.replace(/^gradient /, "")),
  };
  const graph = partitionStates(leaves, zero).run(record());
  verifyGraph(graph);
  return graph;
}

interface Collective {
  readonly op: CollectiveOp;
  readonly axes: string;
  readonly tensors: number;
  readonly place: number;
  /** The first node that reads a result, views and slices followed. */
  readonly read: number;
}

function collectivesOf({ nodes }: Graph): Collective[] {
  const firstRead = (node: AnyNode): number => {
    const place = nodes.findIndex(({ inputs }) => inputs.some((input) => input.node === node));
    const reader = nodes[place];
    return reader?.op === "reshape" ? firstRead(reader) : place;
  };
  return nodes.flatMap((node, place) => {
    if (!isCollective(node.op)) return [];
    const { axes } = (node.attributes as { group: RankGroup }).group;
    return [{ op: node.op, axes, tensors: node.inputs.length, place, read: firstRead(node) }];
  });
}

const gathersOf = (graph: Graph): Collective[] =>
  collectivesOf(graph).filter(({ op }) => op === "all_gather");

describe("gathers", () => {
  test("each parameter is gathered for the forward and again for the backward pass", () => {
    const gathers = gathersOf(partition({ stage: 3, maximumReuseDistance: 0, prefetchBucket: 1 }));
    // w1, w2, w3, then w2: w3 stays between its reads, which nothing is read between.
    expect(gathers.map(({ tensors }) => tensors)).toEqual([1, 1, 1, 1]);
  });

  test("what stays is gathered once", () => {
    expect(gathersOf(partition({ stage: 3, maximumReuseDistance: 1e9, prefetchBucket: 1 }))).toHaveLength(3);
  });

  test("a bucket is gathered before the one that is read before it", () => {
    const gathers = gathersOf(partition({ stage: 3, maximumReuseDistance: 0, prefetchBucket: 1 }));
    gathers.slice(1).forEach(({ place }, index) => {
      expect(place).toBeLessThan(gathers[index]!.read);
      expect(place).toBeGreaterThan(index === 0 ? -1 : gathers[index - 1]!.read);
    });
  });

  test("without overlap each is gathered where it is read", () => {
    for (const { place, read, tensors } of gathersOf(partition({ stage: 3, overlap: false }))) {
      expect(tensors).toBe(1);
      // The reshape stands between.
      expect(read - place).toBeLessThanOrEqual(2);
    }
  });

  test("nothing is gathered ahead where it would be too much", () => {
    const settings = { stage: 3, maximumReuseDistance: 0, prefetchBucket: 1, maximumLive: elements } as const;
    for (const { place, read } of gathersOf(partition(settings))) expect(read - place).toBeLessThanOrEqual(2);
  });

  test("a bucket holds as many as fit", () => {
    const gathers = gathersOf(
      partition({ stage: 3, maximumReuseDistance: 1e9, prefetchBucket: 2 * elements }),
    );
    expect(gathers.map(({ tensors }) => tensors)).toEqual([2, 1]);
  });

  test("the backward pass gathers from near ranks what the forward pass gathered from all", () => {
    const gathers = gathersOf(
      partition({ stage: 3, maximumReuseDistance: 0, prefetchBucket: 1, secondarySize: 2 }),
    );
    expect(gathers.map(({ axes }) => axes)).toEqual(["data", "data", "data", "data/2"]);
  });

  test("small parameters stay whole", () => {
    expect(gathersOf(partition({ stage: 3, persistenceThreshold: elements }))).toEqual([]);
  });
});

describe("reductions", () => {
  const reductionsOf = (settings: Partial<ZeroSettings>): [string, number][] =>
    collectivesOf(partition({ ...settings })).flatMap(({ op, tensors }) =>
      op === "all_gather" ? [] : [[op, tensors]],
    );

  test.each([
    [0, "all_reduce"],
    [1, "all_reduce"],
    [2, "reduce_scatter"],
    [3, "reduce_scatter"],
  ] as const)("stage %i sums gradients by %s", (stage, op) => {
    expect(reductionsOf({ stage, reduceBucket: 1 })).toEqual([
      [op, 1],
      [op, 1],
      [op, 1],
    ]);
    expect(reductionsOf({ stage, reduceBucket: elements + 1 })).toEqual([
      [op, 2],
      [op, 1],
    ]);
  });

  test("a sum starts as soon as its bucket is full", () => {
    const graph = partition({ stage: 2, reduceBucket: 1 });
    const places = collectivesOf(graph).map(({ place }) => place);
    // The first gradient is there long before the last.
    expect(graph.nodes.length - places[0]!).toBeGreaterThan(4);
    for (const place of places) {
      const [made] = graph.nodes[place]!.inputs;
      expect(place - graph.nodes.indexOf(made!.node as AnyNode)).toBeLessThanOrEqual(2);
    }
  });

  test("runs of ranks sum among themselves, then with the other runs", () => {
    const sums = collectivesOf(partition({ stage: 3, shardSize: 2, reduceBucket: 1e9 })).filter(
      ({ op }) => op !== "all_gather",
    );
    expect(sums.map(({ op, axes }) => `${op} ${axes}`)).toEqual([
      "reduce_scatter data/2",
      "all_reduce data%2",
    ]);
  });
});
