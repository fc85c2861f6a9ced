import { describe, expect, test } from "vitest";
import { leaf } from "../../src/graph/build.ts";
import { apply, buildGraph, type Graph } from "../../src/graph/graph.ts";
import type { LocalParameter } from "../../src/parallel/local_parameter.ts";
import { Mesh } from "../../src/parallel/mesh.ts";
import { partitionParameters } from "../../src/parallel/zero/partition.ts";
import { partitionStates, residualName } from "../../src/parallel/zero/pass.ts";
import { defaultZeroSettings } from "../../src/parallel/zero/settings.ts";
import { lockstepWorld } from "../support/lockstep.ts";
import { withNativeRanks } from "./native_world.ts";
import { type TrainingRank, trainTiny } from "./tiny_training.ts";

/** Quantized collectives against a simulation of what is sent, number by number. */

const [world, elements] = [4, 1000];
const padded = Math.ceil(elements / (16 * world)) * 16 * world;
const part = padded / world;

/** y = 2 w is stored, and the gradient of w is what the rank is given. */
function graphOf(rank: number): { graph: Graph; passes: ReturnType<typeof partitionStates>[] } {
  const w = leaf("w", "parameter", [elements], "f32");
  const two = apply("fill", [], { value: 2, shape: [elements], dtype: "f32" });
  const doubled = apply("elementwise", [w, two], { operation: "multiply" });
  const given = leaf("given", "input", [elements], "f32");
  const half = apply("fill", [], { value: 0.5, shape: [elements], dtype: "f32" });
  const gradient = apply("elementwise", [given, half], { operation: "multiply" });
  const target = leaf("gradient", "state", [elements], "f32");
  const graph = buildGraph("quantized", [
    { name: "y", value: doubled },
    { name: "gradient", value: gradient, target },
  ]);
  const box = { starts: [0], sizes: [elements] };
  const local: LocalParameter = {
    name: "w",
    shape: [elements],
    box,
    reducedOver: ["data"],
    replicatedOver: [],
  };
  const settings = {
    ...defaultZeroSettings,
    ...{ stage: 3 as const, persistenceThreshold: 0, quantizedWeights: true, quantizedGradients: true },
  };
  const [parameter] = partitionParameters([local], new Mesh({ data: world }, rank), settings, () => false);
  const leaves = {
    parameterOf: (name: string) => (name === "w" ? parameter : undefined),
    gradientOf: (name: string) => (name === "gradient" ? parameter : undefined),
  };
  return { graph, passes: [partitionStates(leaves, settings)] };
}

/** Numbers whose sizes differ from block to block. */
function numbers(count: number, seed: number): Float32Array {
  return Float32Array.from(
    { length: count },
    (_, index) => Math.sin(index * 1.7 + seed) * 2 ** (((index >> 5) + seed) % 7),
  );
}

/** What is left of numbers that were sent: to the nearest of 2 limit + 1 steps of their block's scale. */
function sent(values: Float32Array, block: number, limit: number): Float32Array {
  const result = new Float32Array(values.length);
  for (let start = 0; start < values.length; start += block) {
    const numbers = values.subarray(start, start + block);
    const scale = Math.max(...numbers.map(Math.abs)) / limit;
    numbers.forEach((value, index) => {
      result[start + index] = scale === 0 ? 0 : Math.round(value / scale) * scale;
    });
  }
  return result;
}

async function runAll(ranks: readonly TrainingRank[], gradients: readonly Float32Array[], steps: number) {
  const whole = numbers(padded, 3).fill(0, elements);
  return await Promise.all(
    ranks.map(async ({ rank, backend }, index) => {
      const { graph, passes } = graphOf(index);
      const executable = backend.compile(graph, { passes, groups: rank.groups });
      const bindings = {
        w: whole.slice(index * part, (index + 1) * part),
        given: gradients[index]!,
        y: new Float32Array(elements),
        gradient: new Float32Array(part),
        [residualName("gradient")]: new Float32Array(padded),
      };
      for (let step = 0; step < steps; step++) await executable.run(bindings);
      executable.dispose();
      return bindings;
    }),
  );
}

/** The sum that rank r gets in step `steps`, and what every rank has not sent by then. */
function simulate(gradients: readonly Float32Array[], steps: number) {
  const residuals = gradients.map(() => new Float32Array(padded));
  let sum = new Float32Array(padded);
  for (let step = 0; step < steps; step++) {
    sum = new Float32Array(padded);
    gradients.forEach((given, rank) => {
      const whole = new Float32Array(padded);
      given.forEach((value, index) => {
        whole[index] = 0.5 * value;
      });
      for (let index = 0; index < padded; index++) whole[index]! += residuals[rank]![index]!;
      for (let owner = 0; owner < world; owner++) {
        const range = [owner * part, (owner + 1) * part] as const;
        const arrived = sent(whole.subarray(...range), 128, 7);
        arrived.forEach((value, index) => {
          residuals[rank]![owner * part + index] = whole[owner * part + index]! - value;
          sum[owner * part + index]! += value;
        });
      }
    });
  }
  return { sum, residuals };
}

function error(actual: Float32Array, expected: Float32Array): number {
  const norm = (values: Float32Array): number => Math.hypot(...values);
  return norm(actual.map((value, index) => value - expected[index]!)) / norm(expected);
}

const backends: Record<string, (body: (ranks: readonly TrainingRank[]) => Promise<void>) => Promise<void>> = {
  reference: async (body) => await body(await lockstepWorld({ data: world })),
  native: async (body) => await withNativeRanks({ data: world }, body),
};

describe.each(Object.entries(backends))("%s", (_name, withRanks) => {
  test("gathered weights are those of the simulation", async () => {
    await withRanks(async (ranks) => {
      const results = await runAll(
        ranks,
        ranks.map((_, rank) => numbers(elements, rank)),
        1,
      );
      const whole = numbers(padded, 3).fill(0, elements);
      const expected = new Float32Array(padded);
      for (let rank = 0; rank < world; rank++)
        expected.set(sent(whole.subarray(rank * part, (rank + 1) * part), 64, 127), rank * part);
      for (const { y } of results)
        expect(error(y, expected.map((value) => 2 * value).subarray(0, elements))).toBeLessThan(1e-6);
    });
  });

  test.each([1, 3])(
    "reduced gradients and residuals are those of the simulation after %i steps",
    async (steps) => {
      await withRanks(async (ranks) => {
        const gradients = ranks.map((_, rank) => numbers(elements, rank + 5));
        const results = await runAll(ranks, gradients, steps);
        const { sum, residuals } = simulate(gradients, steps);
        results.forEach((result, rank) => {
          const own = sum.subarray(rank * part, (rank + 1) * part);
          expect(error(result.gradient, own)).toBeLessThan(1e-6);
          const difference = result[residualName("gradient")]!.map(
            (value, index) => value - residuals[rank]![index]!,
          );
          expect(Math.hypot(...difference) / Math.hypot(...sum)).toBeLessThan(1e-6);
        });
      });
    },
  );
});

test.each([
  ["weights", { quantizedWeights: true }],
  [
    "weights, gathered from near ranks for backward",
    { quantizedWeights: true, secondarySize: 2, maximumReuseDistance: 0 },
  ],
  ["gradients", { quantizedGradients: true }],
  ["both", { quantizedWeights: true, quantizedGradients: true }],
])("training with quantized %s ends within 2%% of the exact loss", async (_name, zero) => {
  const train = async (settings: object) =>
    await withNativeRanks({ data: 4 }, async (ranks) => {
      const outcome = await trainTiny(ranks, {
        steps: 60,
        learningRate: 0.003,
        zero: { stage: 3, persistenceThreshold: 0, ...settings },
      });
      for (const engine of outcome.engines) engine.dispose();
      return outcome.losses;
    });
  const exact = await train({});
  const lossy = await train(zero);
  expect(lossy).not.toEqual(exact);
  const mean = (losses: readonly number[]): number =>
    losses.slice(-5).reduce((sum, loss) => sum + loss / 5, 0);
  expect(Math.abs(mean(lossy) - mean(exact)) / mean(exact)).toBeLessThan(0.02);
});
