import { describe, expect, test } from "vitest";
import type { MeshSizes } from "../../src/parallel/mesh.ts";
import { lockstepWorld } from "../support/lockstep.ts";
import { type TinyOutcome, type TinyTraining, trainTiny } from "./tiny_training.ts";

/** Whole trainings over tensor and sequence axes, in float64: what each mesh computes is what one rank does. */
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

/** Losses, norms and what was learnt are those of one rank; parameters are kept in float32. */
function expectSame(actual: TinyOutcome, alone: TinyOutcome): void {
  expectClose(actual.losses, alone.losses, 1e-6);
  expectClose(actual.norms, alone.norms, 1e-5);
  for (const [name, values] of alone.parameters) {
    const own = actual.parameters.get(name)!;
    const apart = values.reduce((worst, value, index) => Math.max(worst, Math.abs(value - own[index]!)), 0);
    expect(apart, name).toBeLessThan(1e-5);
  }
}

const meshes: Partial<MeshSizes>[] = [
  { tensor: 2 },
  { tensor: 4 },
  { sequence: 2 },
  { sequence: 4 },
  { sequence: 2, tensor: 2 },
  { data: 2, tensor: 2 },
  { data: 2, sequence: 2 },
  { data: 2, sequence: 2, tensor: 2 },
];

describe.each([false, true])("tied embeddings: %s", (tied) => {
  test.each(meshes)("%o trains as one rank does", async (mesh) => {
    const accumulation = 2;
    const alone = await train({ data: 1 }, { tied, accumulation: accumulation * (mesh.data ?? 1) });
    const outcome = await train(mesh, { tied, accumulation });
    expectSame(outcome, alone);
    // Ranks of a tensor axis all have the loss; those of the others add theirs.
    if (mesh.data === undefined && mesh.sequence === undefined) {
      expectClose([outcome.evaluation], [alone.evaluation], 1e-6);
    }
  });
});

test.each([0, 1, 2, 3] as const)("ZeRO stage %i over data and sequence, beside tensor", async (stage) => {
  const alone = await train({ data: 1 });
  const outcome = await train({ data: 2, sequence: 2, tensor: 2 }, { zero: { stage } });
  expectSame(outcome, alone);
});

test.each([{ tensor: 2 }, { sequence: 2, tensor: 2 }])("%o without sequence-sharded norms", async (mesh) => {
  const alone = await train({ data: 1 });
  expectSame(await train(mesh, { wholeNorms: true }), alone);
});

test("with recomputation", async () => {
  const alone = await train({ data: 1 });
  expectSame(await train({ sequence: 2, tensor: 2 }, { recompute: { mode: "every_k", every: 1 } }), alone);
});

test("states of a rank shrink with the tensor axis, and further where ZeRO cuts over sequence", async () => {
  const [one] = (await train({ data: 1 }, { steps: 1 })).bytes;
  const [tensor] = (await train({ tensor: 2 }, { steps: 1 })).bytes;
  const [both] = (await train({ tensor: 2, sequence: 2 }, { steps: 1, zero: { stage: 1 } })).bytes;
  // All but the norms is halved.
  expect(tensor!.parameters / one!.parameters).toBeGreaterThan(0.5);
  expect(tensor!.parameters / one!.parameters).toBeLessThan(0.51);
  expect(both!.optimizer / tensor!.optimizer).toBeGreaterThanOrEqual(0.5);
  expect(both!.optimizer / tensor!.optimizer).toBeLessThan(0.53);
});
