import { ConfigError } from "../../base/errors.ts";
import { maximumElements } from "../../base/shape.ts";
import { blocksOf } from "../../compiler/recompute_policy.ts";
import { type Graph, isLeaf } from "../../graph/graph.ts";
import { costOf } from "../../graph/rules/cost.ts";
import { assignSlots, stageOfSlot } from "./slots.ts";

/**
 * How blocks are dealt out to stages: so that the slowest stage is as fast as can be by the cost rules (`best`),
 * as many blocks a stage (`uniform`), or as many parameters (`parameters`).
 */
export const partitionMethods = ["best", "uniform", "parameters"] as const;
export type PartitionMethod = (typeof partitionMethods)[number];

/** The blocks of each stage, in order: the stage of every numbered block of a graph. */
export interface Partition {
  readonly stages: number;
  /** How many blocks each stage has; only the first and the last may have none. */
  readonly blocks: readonly number[];
  /** The stage of a block. */
  stageOf(block: number): number;
}

/** Operations that take as long as moving a byte: how the cost rules' two numbers become one. */
const operationsPerByte = 10;

/**
 * Cuts a model's blocks into contiguous stages. What comes before the blocks goes with the first stage, what comes
 * after with the last; either may hold nothing else.
 * @param method a method, or how many blocks each stage gets.
 * @throws ConfigError where there are fewer blocks than stages need, or the given numbers do not fit.
 */
export function partitionBlocks(
  graph: Graph,
  stages: number,
  method: PartitionMethod | readonly number[] = "best",
): Partition {
  const blocks = blocksOf(graph);
  if (typeof method !== "string") return givenPartition(blocks, stages, method);
  if (blocks.length + 2 < stages) {
    throw new ConfigError("too_many_stages", "the model has too few blocks for so many pipeline stages", {
      where: "parallel.pipeline",
      expected: `at most ${blocks.length + 2} stages for ${blocks.length} blocks (one may hold the embedding alone, one the loss)`,
      received: `${stages} stages`,
      hint: "lower parallel.pipeline or pipeline.chunks",
    });
  }
  if (method === "uniform" || (method === "parameters" && blocks.length >= stages)) {
    const weights =
      method === "uniform" ? blocks.map(() => 1) : parametersOfAtoms(graph, blocks).slice(1, -1);
    if (blocks.length >= stages) return makePartition(blocks, stages, splitEvenly(weights, stages));
  }
  const atoms = method === "parameters" ? parametersOfAtoms(graph, blocks) : costsOfAtoms(graph, blocks);
  const sizes = splitEvenly(atoms, stages);
  // The atoms before and after the blocks are not blocks.
  sizes[0]!--;
  sizes[stages - 1]!--;
  return makePartition(blocks, stages, sizes);
}

function givenPartition(blocks: readonly number[], stages: number, given: readonly number[]): Partition {
  const total = given.reduce((sum, count) => sum + count, 0);
  const inner = given.slice(1, -1);
  const fits =
    given.length === stages &&
    total === blocks.length &&
    given.every((count) => Number.isInteger(count) && count >= 0) &&
    inner.every((count) => count > 0);
  if (!fits) {
    throw new ConfigError("bad_partition", "the blocks of the pipeline's stages do not fit the model", {
      where: "pipeline.partition",
      expected: `${stages} numbers that add up to ${blocks.length} blocks, only the first and the last of which may be 0`,
      received: `[${given.join(", ")}]`,
    });
  }
  return makePartition(blocks, stages, given);
}

function makePartition(blocks: readonly number[], stages: number, sizes: readonly number[]): Partition {
  const stageOfBlock = new Map<number, number>();
  let next = 0;
  sizes.forEach((size, stage) => {
    for (const block of blocks.slice(next, next + size)) stageOfBlock.set(block, stage);
    next += size;
  });
  return { stages, blocks: sizes, stageOf: (block) => stageOfBlock.get(block) ?? 0 };
}

/** The cost of what comes before the blocks, of each block, and of what comes after, forward and backward. */
function costsOfAtoms(graph: Graph, blocks: readonly number[]): number[] {
  const atoms = blocks.length + 2;
  const place = new Map(blocks.map((block, index) => [block, index + 1]));
  const { slots } = assignSlots(graph, atoms, (block) => place.get(block)!);
  const costs = new Array<number>(atoms).fill(0);
  for (const [node, slot] of slots) {
    const { flops, bytes } = costOf(node);
    costs[stageOfSlot(slot, atoms)]! += Math.max(flops, bytes * operationsPerByte);
  }
  return costs;
}

/** The parameters read before the blocks, by each block and after; those read in several places count first. */
function parametersOfAtoms(graph: Graph, blocks: readonly number[]): number[] {
  const atoms = blocks.length + 2;
  const place = new Map(blocks.map((block, index) => [block, index + 1]));
  const { slots } = assignSlots(graph, atoms, (block) => place.get(block)!);
  const counts = new Array<number>(atoms).fill(0);
  const counted = new Set<string>();
  for (const node of graph.nodes) {
    const slot =
      slots.get(node) ?? (node.scope.block === undefined ? undefined : place.get(node.scope.block)!);
    if (slot === undefined) continue;
    for (const input of node.inputs) {
      if (!isLeaf(input) || input.node.attributes.kind !== "parameter") continue;
      const { name, shape } = input.node.attributes;
      if (counted.has(name)) continue;
      counted.add(name);
      counts[stageOfSlot(slot, atoms)]! += maximumElements(shape);
    }
  }
  return counts;
}

/**
 * How many consecutive weights each of `parts` gets, at least one, so that the heaviest part is as light as can be;
 * of such splits the one with the least sum of squares.
 */
export function splitEvenly(weights: readonly number[], parts: number): number[] {
  const prefix = [0];
  for (const weight of weights) prefix.push(prefix.at(-1)! + weight);
  interface Best {
    readonly heaviest: number;
    readonly squares: number;
    readonly size: number;
  }
  // best[part][end]: parts 0..part hold the weights before `end`.
  const best: (Best | undefined)[][] = [];
  for (let part = 0; part < parts; part++) {
    const row: (Best | undefined)[] = [];
    for (let end = part + 1; end <= weights.length - (parts - 1 - part); end++) {
      for (let start = part; start < end; start++) {
        const before =
          part === 0 ? (start === 0 ? { heaviest: 0, squares: 0 } : undefined) : best[part - 1]![start];
        if (before === undefined) continue;
        const weight = prefix[end]! - prefix[start]!;
        const heaviest = Math.max(before.heaviest, weight);
        const squares = before.squares + weight ** 2;
        const known = row[end];
        const better =
          known === undefined ||
          heaviest < known.heaviest ||
          (heaviest === known.heaviest && squares < known.squares);
        if (better) row[end] = { heaviest, squares, size: end - start };
      }
    }
    best.push(row);
  }
  const sizes: number[] = [];
  let end = weights.length;
  for (let part = parts - 1; part >= 0; part--) {
    const { size } = best[part]![end]!;
    sizes.unshift(size);
    end -= size;
  }
  return sizes;
}
