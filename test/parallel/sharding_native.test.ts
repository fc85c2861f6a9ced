import { expect, test } from "vitest";
import { createLocalWorld, createNativeBackend } from "../../src/backends.ts";
import { Mesh, type MeshSizes } from "../../src/parallel/mesh.ts";
import { joinMesh } from "../../src/train/rank.ts";
import { type TinyTraining, trainTiny } from "./tiny_training.ts";

/** Kernels of several ranks in float32 against those of one: the bars of tensor and sequence parallelism. */
const model = { num_attention_heads: 4, num_key_value_heads: 2, hidden_size: 32, intermediate_size: 44 };

async function train(sizes: Partial<MeshSizes>, options: TinyTraining = {}) {
  const world = createLocalWorld(new Mesh(sizes, 0).worldSize, { timeoutSeconds: 30 });
  const ranks = await Promise.all(
    world.map(async (group, index) => {
      const rank = await joinMesh(group, new Mesh(sizes, index));
      return { rank, backend: createNativeBackend({ threads: 1, isolated: true }) };
    }),
  );
  return await trainTiny(ranks, { model, steps: 4, ...options });
}

test.each<Partial<MeshSizes>>([
  { tensor: 2 },
  { sequence: 2 },
  { sequence: 2, tensor: 2 },
  { data: 2, sequence: 2 },
  { data: 2, tensor: 2 },
])("native ranks over %o train as one", async (mesh) => {
  const alone = await train({ data: 1 });
  for (const stage of [0, 3] as const) {
    const outcome = await train(mesh, { zero: { stage } });
    outcome.losses.forEach((loss, step) => {
      expect(Math.abs(loss / alone.losses[step]! - 1)).toBeLessThan(1e-5);
    });
    outcome.norms.forEach((norm, step) => {
      expect(Math.abs(norm / alone.norms[step]! - 1)).toBeLessThan(1e-4);
    });
  }
});

test("bf16 over tensor and sequence stays near float32", async () => {
  const exact = await train({ data: 1 });
  const outcome = await train({ sequence: 2, tensor: 2 }, { dtype: "bf16" });
  outcome.losses.forEach((loss, step) => {
    expect(Math.abs(loss / exact.losses[step]! - 1)).toBeLessThan(0.01);
  });
});
