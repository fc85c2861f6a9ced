import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomGraphs } from "../../../test/support/random_graph.ts";
import { type Memory, memoryFor, runPlanned, runReference } from "../../../test/support/run_graph.ts";
import type { Graph } from "../../graph/graph.ts";
import { verifyGraph } from "../../graph/verify.ts";
import { type Pass, passesFromRecomputation, pipeline } from "../pipeline.ts";

/**
 * What every pass must keep, on random graphs: the graph stays well-formed, and it means the same, by the
 * reference in float64 and by the kernels bit for bit.
 */

/** The largest difference relative to the largest value; results that are not finite must be equal. */
function difference(actual: Memory, expected: Memory): number {
  let worst = 0;
  for (const [name, data] of Object.entries(expected)) {
    const found = actual[name] ?? data;
    let largest = 1;
    let error = 0;
    data.forEach((value, i) => {
      if (Object.is(value, found[i])) return;
      if (Number.isFinite(value)) largest = Math.max(largest, Math.abs(value));
      error = Math.max(
        error,
        Number.isNaN(value - found[i]!) ? Number.POSITIVE_INFINITY : Math.abs(value - found[i]!),
      );
    });
    worst = Math.max(worst, error / largest);
  }
  return worst;
}

/** Constants are folded to what float32 holds; all else is computed in float64 on both sides. */
const foldingError = 1e-5;

const passes: Pass[] = [];
for (const pass of pipeline()) if (!passes.some(({ name }) => name === pass.name)) passes.push(pass);

test.each(passes)("$name keeps what graphs mean", async ({ name, run }) => {
  await fc.assert(
    fc.asyncProperty(randomGraphs({ dtypes: ["f32"] }), async (graph) => {
      const rewritten = run(graph);
      verifyGraph(rewritten);
      // Packed panels have no meaning outside of the product that reads them.
      const bar = name === "simplify" ? foldingError : 1e-12;
      expect(difference(await runReference(rewritten), await runReference(graph))).toBeLessThan(bar);
    }),
    { numRuns: 120 },
  );
});

test("the whole pipeline keeps what graphs mean and stays well-formed after every pass", async () => {
  await fc.assert(
    fc.asyncProperty(randomGraphs({ dtypes: ["f32"] }), async (graph) => {
      let current: Graph = graph;
      for (const { run } of pipeline()) {
        current = run(current);
        verifyGraph(current);
      }
      expect(difference(await runReference(current), await runReference(graph))).toBeLessThan(foldingError);
    }),
    { numRuns: 150 },
  );
});

describe("bits on native kernels", () => {
  test.each([
    { name: "float32", dtypes: ["f32"] as const },
    { name: "bf16 and float32", dtypes: ["bf16", "f32"] as const },
    { name: "f16 and float32", dtypes: ["f16", "f32"] as const },
  ])("fusing and merging change none in $name", async ({ dtypes }) => {
    await fc.assert(
      fc.asyncProperty(randomGraphs({ dtypes, elementwiseOnly: true }), async (graph) => {
        const fused = passesFromRecomputation(undefined).reduce((current, { run }) => run(current), graph);
        const expected = await runPlanned(graph, memoryFor(graph));
        const actual = await runPlanned(fused, memoryFor(graph));
        expect(actual).toEqual(expected);
      }),
      { numRuns: 120 },
    );
  });
});
