import { describe, expect, test } from "vitest";
import { ConfigError } from "../../src/base/errors.ts";
import { type ContextMethod, type ContextSettings, contextPlan } from "../../src/parallel/context/methods.ts";
import type { MeshSizes } from "../../src/parallel/mesh.ts";
import { lockstepWorld } from "../support/lockstep.ts";
import { type TinyOutcome, type TinyTraining, trainTiny } from "./tiny_training.ts";

/** Whole trainings with tokens cut over ranks that attend to each other's, in float64: what one rank computes. */
const model = { num_attention_heads: 4, num_key_value_heads: 2, hidden_size: 32, intermediate_size: 44 };

async function train(mesh: Partial<MeshSizes>, options: TinyTraining = {}): Promise<TinyOutcome> {
  return await trainTiny(await lockstepWorld(mesh), { model, ...options });
}

function expectClose(actual: readonly number[], expected: readonly number[], tolerance: number): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, index) => {
    expect(Math.abs(value - expected[index]!) / Math.abs(expected[index]!)).toBeLessThan(tolerance);
  });
}

function expectSame(actual: TinyOutcome, alone: TinyOutcome): void {
  expectClose(actual.losses, alone.losses, 1e-6);
  expectClose(actual.norms, alone.norms, 1e-5);
  for (const [name, values] of alone.parameters) {
    const own = actual.parameters.get(name)!;
    const apart = values.reduce((worst, value, index) => Math.max(worst, Math.abs(value - own[index]!)), 0);
    expect(apart, name).toBeLessThan(1e-5);
  }
}

function plan(method: ContextMethod, ranks: number, settings: Partial<ContextSettings> = {}) {
  return contextPlan(method, ranks, { heads: 1, placement: "head_first", ...settings });
}

const cases: [string, Partial<MeshSizes>, TinyTraining][] = [
  ["ring", { sequence: 2 }, { context: plan("ring", 2) }],
  ["striped", { sequence: 4 }, { context: plan("striped", 4) }],
  ["burst", { sequence: 4 }, { context: plan("burst", 4) }],
  ["usp", { sequence: 4 }, { context: plan("usp", 4, { heads: 2 }) }],
  [
    "loongtrain",
    { sequence: 4 },
    { context: plan("loongtrain", 4, { innerRing: 2, placement: "context_first" }) },
  ],
  ["striped beside tensor", { sequence: 2, tensor: 2 }, { context: plan("striped", 2) }],
  [
    "usp beside data, ZeRO 3",
    { data: 2, sequence: 4 },
    { context: plan("usp", 4, { heads: 2 }), zero: { stage: 3 } },
  ],
  [
    "usp with recomputation of all but attention",
    { sequence: 4 },
    { context: plan("usp", 4, { heads: 2 }), recompute: { mode: "keep_attention" } },
  ],
  [
    "striped with recomputation",
    { sequence: 2 },
    { context: plan("striped", 2), recompute: { mode: "every_k", every: 1 } },
  ],
];

test.each(cases)("%s trains as one rank does", async (_, mesh, options) => {
  const alone = await train({ data: 1 });
  const outcome = await train(mesh, options);
  expectSame(outcome, alone);
  if (mesh.data === undefined) expectClose([outcome.evaluation], [alone.evaluation], 1e-6);
});

describe("degrees that do not divide", () => {
  test.each([
    [{ heads: 3 }, "sequence_parallel.ulysses_degree", "one of 1, 2, 4 (4 ranks)"],
    [{ heads: 2, innerRing: 4 }, "sequence_parallel.inner_ring", "one of 1, 2 (2 ranks)"],
  ])("%o are refused with the legal ones", (settings, where, legal) => {
    expect(() => plan("loongtrain", 4, settings)).toThrow(ConfigError);
    expect(() => plan("loongtrain", 4, settings)).toThrow(where);
    expect(() => plan("loongtrain", 4, settings)).toThrow(legal);
  });
});
