import { expect, test } from "vitest";
import { decode, encode, type TensorData } from "../../src/base/dtype.ts";
import { elementCount } from "../../src/base/shape.ts";
import { type ContextMethod, contextPlan } from "../../src/parallel/context/methods.ts";
import { createNativeBackend } from "../../src/runtime/native/backend.ts";
import { createLocalWorld } from "../../src/runtime/native/local_world.ts";
import { evaluate } from "../../src/runtime/reference/evaluate.ts";
import { joinGrid } from "../../src/train/grid_groups.ts";
import { joinMesh } from "../../src/train/rank.ts";
import { attentionGraph, cut, operandsOf, type Problem } from "./context_support.ts";

/** Native ranks that pass blocks around while they compute, against one rank's attention in float64. */
const problem: Problem = {
  offsets: [0, 130, 391, 400, 1024],
  heads: 8,
  groups: 4,
  size: 24,
  attributes: { scale: 0.2, causal: true, window: 0 },
};

const methods: [ContextMethod, number, number, number | undefined][] = [
  ["ring", 2, 1, undefined],
  ["ring", 4, 1, undefined],
  ["striped", 4, 1, undefined],
  ["burst", 4, 1, undefined],
  ["usp", 4, 2, undefined],
  ["loongtrain", 8, 2, 2],
];

test.each(methods)(
  "%s over %i ranks, heads over %i, inner rings of %s",
  async (method, ranks, heads, innerRing) => {
    const settings = {
      heads,
      placement: "head_first" as const,
      ...(innerRing === undefined ? {} : { innerRing }),
    };
    const plan = contextPlan(method, ranks, settings);
    const parts = cut(problem, plan);
    const worlds = createLocalWorld(ranks, { timeoutSeconds: 20, links: {} });
    const results = await Promise.all(
      worlds.map(async (world, index) => {
        const { mesh, graph, leaves } = parts[index]!;
        const rank = await joinGrid(await joinMesh(world, mesh), plan.grid);
        const backend = createNativeBackend({ isolated: true, threads: 1 });
        const program = backend.compile(graph, { groups: rank.groups });
        const bindings: Record<string, TensorData> = {};
        for (const [name, { values }] of leaves) {
          const dtype = name === "offsets" ? "i32" : "f32";
          const memory = backend.allocate(dtype, values.length);
          memory.set(encode(dtype, values));
          bindings[name] = memory;
        }
        for (const { name, value } of graph.outputs) {
          const { shape } = value.node.outputs[value.index]!;
          bindings[name] = backend.allocate("f32", elementCount(shape as number[]));
        }
        // The second run finds the memory that the first one left.
        await program.run(bindings);
        await program.run(bindings);
        const outputs = new Map(graph.outputs.map(({ name }) => [name, decode("f32", bindings[name]!)]));
        backend.dispose();
        return outputs;
      }),
    );
    for (const world of worlds) world.close();
    const whole = evaluate(attentionGraph(problem, problem.offsets.at(-1)!), operandsOf(problem));
    for (const [name, { values, shape }] of whole) {
      const size = elementCount(shape.slice(1));
      const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      let worst = 0;
      results.forEach((outputs, rank) => {
        parts[rank]!.places.forEach((place, i) => {
          for (let d = 0; d < size; d++) {
            const error = Math.abs(outputs.get(name)![i * size + d]! - values[place * size + d]!);
            worst = Math.max(worst, error);
          }
        });
      });
      expect(worst / largest, name).toBeLessThan(1e-5);
    }
  },
);
