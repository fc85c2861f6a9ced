import { describe, expect, test } from "vitest";
import { bytesPerElement } from "../../src/base/dtype.ts";
import { maximumElements } from "../../src/base/shape.ts";
import { compileProgram } from "../../src/compiler/compile.ts";
import { dtypeOf, type Graph, shapeOf, type Value } from "../../src/graph/graph.ts";
import { communicationOf } from "../../src/graph/rules/communication.ts";
import { inScope } from "../../src/graph/scope.ts";
import type { ContextPlan } from "../../src/parallel/context/context_parallel.ts";
import { gridPlace, sequenceIndex } from "../../src/parallel/context/grid.ts";
import { placesOf, tokenOrder } from "../../src/parallel/context/token_order.ts";
import { visiblePairs } from "../../src/parallel/context/visible_pairs.ts";
import { attentionGraph, type Problem, planOf, rankGraph } from "./context_support.ts";

const causal = { scale: 0.1, causal: true, window: 0 };

/** Bytes that a rank sends, by op and phase. */
function sent(graph: Graph, op: "permute" | "all_to_all", phase: "forward" | "backward"): number {
  return graph.nodes
    .filter((node) => node.op === op && node.scope.phase === phase)
    .reduce((sum, node) => sum + communicationOf(node)!.bytes, 0);
}

describe("bytes that a rank sends", () => {
  // Elements of a rank's queries and of its keys, and statistics of its queries.
  const [tokens, heads, size] = [64, 8, 16];
  const of = (groups: number): Problem => ({ offsets: [0, tokens], heads, groups, size, attributes: causal });
  const elements = (count: number, ranks: number) => (tokens / ranks) * count * size;

  const rings: Record<string, { plan: ContextPlan; ranks: number }> = {
    "a ring of 2": { plan: planOf({ inner: 2 }), ranks: 2 },
    "a ring of 4": { plan: planOf({ inner: 4 }), ranks: 4 },
    "striped over 4": { plan: planOf({ inner: 4, order: "striped" }), ranks: 4 },
    "a double ring": { plan: planOf({ inner: 2, outer: 2 }), ranks: 4 },
  };
  test.each(Object.keys(rings))("%s: keys and values, then these with their gradients", (name) => {
    const { plan, ranks } = rings[name]!;
    for (const [groups, dtype] of [
      [8, "f32"],
      [2, "bf16"],
    ] as const) {
      const graph = rankGraph(of(groups), plan, 1, dtype);
      const keys = elements(groups, ranks);
      const bytes = bytesPerElement(dtype);
      expect(sent(graph, "permute", "forward")).toBe((ranks - 1) * 2 * keys * bytes);
      expect(sent(graph, "permute", "backward")).toBe((ranks - 1) * 2 * keys * (bytes + 4));
    }
  });

  test("burst: queries, two gradients of theirs and statistics instead, where that is less", () => {
    const statistics = (tokens / 4) * heads * 4;
    for (const dtype of ["f32", "bf16"] as const) {
      const bytes = bytesPerElement(dtype);
      const queries = 3 * (elements(heads, 4) * (2 * bytes + 4) + 2 * statistics);
      const keys = (groups: number) => 3 * 2 * elements(groups, 4) * (bytes + 4);
      const backward = (groups: number, choice: ContextPlan["backward"]) =>
        sent(rankGraph(of(groups), planOf({ inner: 4, backward: choice }), 0, dtype), "permute", "backward");
      expect(backward(8, "queries")).toBe(queries);
      // As many key heads as query heads: 3 tensors against 4. A quarter of them: keys are less.
      expect(queries).toBeLessThan(keys(8));
      expect(backward(8, "least")).toBe(queries);
      expect(backward(2, "least")).toBe(keys(2));
    }
  });

  test.each([
    [1, 4],
    [2, 2],
    [4, 1],
  ])("heads over %i, rings of %i", (head, inner) => {
    const graph = rankGraph(of(8), planOf({ head, inner }), 3, "bf16");
    const [keys, queries] = [elements(8, 4), elements(8, 4)];
    const statistics = (tokens / 4) * heads;
    // Of what a rank holds, all but its own part of the heads goes to others.
    const others = (head - 1) / head;
    expect(sent(graph, "all_to_all", "forward")).toBe(others * 2 * (queries + 2 * keys + queries));
    expect(sent(graph, "all_to_all", "backward")).toBe(
      others * (2 * queries + 4 * statistics + 2 * (queries + 2 * keys)),
    );
    // A ring of fewer ranks, each with as many times the tokens and fewer heads.
    expect(sent(graph, "permute", "forward")).toBe((inner - 1) * 2 * keys * 2);
    expect(sent(graph, "permute", "backward")).toBe((inner - 1) * 2 * keys * 6);
  });
});

describe("work of a causal ring", () => {
  const [tokens, ranks] = [64, 4];
  const own = tokens / ranks;
  const pairsOf = (order: "contiguous" | "striped", rank: number, source: number): number =>
    visiblePairs(placesOf(order, tokens, rank, ranks), placesOf(order, tokens, source, ranks), causal);
  /** What the slowest rank computes, step by step. */
  const slowest = (order: "contiguous" | "striped"): number[] =>
    Array.from({ length: ranks }, (_, step) =>
      Math.max(
        ...Array.from({ length: ranks }, (_, rank) => pairsOf(order, rank, (rank + ranks - step) % ranks)),
      ),
    );

  test("contiguous tokens: all of a block, half of a rank's own, or nothing", () => {
    expect(slowest("contiguous")).toEqual([(own * (own + 1)) / 2, own * own, own * own, own * own]);
    expect(pairsOf("contiguous", 0, 3)).toBe(0);
  });

  test("striped tokens: half of every block on every rank", () => {
    for (let rank = 0; rank < ranks; rank++) {
      for (let source = 0; source < ranks; source++) {
        const expected = source <= rank ? (own * (own + 1)) / 2 : (own * (own - 1)) / 2;
        expect(pairsOf("striped", rank, source)).toBe(expected);
      }
    }
    const [ring, striped] = [slowest("contiguous"), slowest("striped")].map((steps) =>
      steps.reduce((a, b) => a + b),
    );
    // (n - 1/2) blocks against n / 2 of them, but for the diagonal.
    expect(ring! / striped!).toBeGreaterThan(1.6);
  });

  test("every pair is computed by one rank, also within a window and in both directions", () => {
    for (const attributes of [causal, { ...causal, window: 11 }, { ...causal, causal: false, window: 5 }]) {
      for (const order of ["contiguous", "striped"] as const) {
        let pairs = 0;
        for (let rank = 0; rank < ranks; rank++) {
          for (let source = 0; source < ranks; source++) {
            pairs += visiblePairs(
              placesOf(order, tokens, rank, ranks),
              placesOf(order, tokens, source, ranks),
              attributes,
            );
          }
        }
        let expected = 0;
        for (let query = 0; query < tokens; query++) {
          for (let key = 0; key < tokens; key++) {
            const future = attributes.causal && key > query;
            const past = attributes.window > 0 && query - key >= attributes.window;
            if (!future && !past) expected++;
          }
        }
        expect(pairs).toBe(expected);
      }
    }
  });

  test("the cost of a block tells the pairs that are expected", () => {
    const problem: Problem = { offsets: [0, tokens], heads: 2, groups: 2, size: 4, attributes: causal };
    const fractions = (order: "contiguous" | "striped", rank: number): number[] =>
      rankGraph(problem, planOf({ inner: ranks, order }), rank).nodes.flatMap((node) =>
        node.op === "attention_block" ? [node.attributes.fraction] : [],
      );
    const half = (own + 1) / 2 / own;
    expect(fractions("contiguous", 1)).toEqual([half, 1, 0, 0]);
    expect(fractions("striped", 1)).toEqual([half, half, (own - 1) / 2 / own, (own - 1) / 2 / own]);
  });
});

describe("memory", () => {
  const bytesOf = (value: Value): number => maximumElements(shapeOf(value)) * bytesPerElement(dtypeOf(value));
  /** What the backward pass reads of the forward pass and of its operands, but for places. */
  const kept = (graph: Graph): number => {
    const values = new Map<string, number>();
    for (const node of graph.nodes) {
      if (node.scope.phase === "forward") continue;
      for (const value of node.inputs) {
        if (value.node.scope.phase === "backward" || dtypeOf(value) === "i32") continue;
        values.set(`${value.node.id}.${value.index}`, bytesOf(value));
      }
    }
    return [...values.values()].reduce((a, b) => a + b, 0);
  };

  test.each([
    ["a ring", planOf({ inner: 4 })],
    ["striped", planOf({ inner: 4, order: "striped" })],
    ["a double ring", planOf({ inner: 2, outer: 2 })],
    ["burst", planOf({ inner: 4, backward: "queries" })],
    ["heads x rings", planOf({ inner: 2, head: 2 })],
    ["heads", planOf({ head: 4 })],
  ])("%s keeps a quarter of what one rank keeps, over 4 ranks and 16k tokens", (_, plan) => {
    const problem: Problem = { offsets: [0, 16_384], heads: 8, groups: 8, size: 64, attributes: causal };
    const { program: whole } = compileProgram(attentionGraph(problem, 16_384));
    const { program: part } = compileProgram(rankGraph(problem, plan, 1));
    const wholeKept = kept(attentionGraph(problem, 16_384));
    expect(Math.abs(kept(rankGraph(problem, plan, 1)) / wholeKept - 1 / 4)).toBeLessThan(0.001);
    // Beside that come the places of all tokens, and at most eleven blocks: what travels lies at both of its ends.
    const block = 4 * 4096 * 8 * 64;
    expect(part.arenaBytes).toBeLessThan(
      whole.arenaBytes / 4 + 2 * 4 * 16_384 + 11 * block + 4 * 4096 * 8 * 4,
    );
  });
});

test("a block whose attention is kept passes nothing around to be computed again", () => {
  const problem: Problem = { offsets: [0, 64], heads: 4, groups: 4, size: 8, attributes: causal };
  const count = (mode: "every_k" | "keep_attention") => {
    const graph = inScope({ name: "block", block: 0, phase: "forward" }, () =>
      rankGraph(problem, planOf({ head: 2, inner: 2 }), 0),
    );
    const recompute = mode === "every_k" ? ({ mode, every: 1 } as const) : { mode };
    const { nodes } = compileProgram(graph, { recompute }).graph;
    return (["permute", "all_to_all", "attention_block"] as const).map(
      (op) => nodes.filter((node) => node.op === op).length,
    );
  };
  // Forward: one step of a ring, heads there and back. Backward: one step there, one of the sums, and heads.
  const backward = [2, 3, 0];
  expect(count("keep_attention")).toEqual([1 + backward[0]!, 2 + backward[1]! + 1, 2]);
  // The results of the block are an output here, and kept; what the gradients read is computed again.
  expect(count("every_k")).toEqual([1 + 1 + backward[0]!, 2 + 1 + backward[1]!, 2 + 2]);
});

test("the grid places every rank once, and finds it again", () => {
  for (const placement of ["head_first", "context_first"] as const) {
    const grid = { head: 2, outer: 3, inner: 2, placement };
    const places = Array.from({ length: 12 }, (_, index) => gridPlace(grid, index));
    expect(new Set(places.map((place) => JSON.stringify(place))).size).toBe(12);
    places.forEach((place, index) => {
      expect(sequenceIndex(grid, place)).toBe(index);
    });
    // Neighbours differ in the dimension that comes first.
    const [first, second] = places;
    expect([first!.head, second!.head]).toEqual(placement === "head_first" ? [0, 1] : [0, 0]);
  }
});

test("contiguous parts of a reordered batch are what each rank holds", () => {
  expect([...tokenOrder("striped", 8, 2)]).toEqual([0, 2, 4, 6, 1, 3, 5, 7]);
  expect([...tokenOrder("contiguous", 6, 3)]).toEqual([0, 1, 2, 3, 4, 5]);
});
