import { expect, test } from "vitest";
import type { MeshSizes } from "../../src/parallel/mesh.ts";
import { withNativeRanks } from "./native_world.ts";
import { type TinyOutcome, type TinyTraining, trainTiny } from "./tiny_training.ts";

/** MLPs in tiles of tokens together with what else splits a training. */

async function train(mesh: Partial<MeshSizes>, options: TinyTraining): Promise<TinyOutcome> {
  return await withNativeRanks(mesh, async (ranks) => {
    const outcome = await trainTiny(ranks, { mesh, ...options });
    for (const engine of outcome.engines) engine.dispose();
    return outcome;
  });
}

test.each([
  ["alone", {}, {}],
  ["accumulating", {}, { accumulation: 2 }],
  ["ZeRO 2", { data: 2 }, { zero: { stage: 2 } }],
  ["ZeRO 3, recomputing", { data: 2 }, { zero: { stage: 3 }, recompute: { mode: "every_k", every: 1 } }],
  ["sequence parallel", { sequence: 2 }, {}],
  ["tensor parallel", { tensor: 2 }, { model: { intermediate_size: 80 } }],
] as [string, Partial<MeshSizes>, TinyTraining][])(
  "the curve is that without tiles: %s",
  async (_name, mesh, options) => {
    const whole = await train(mesh, { steps: 3, ...options });
    const tiled = await train(mesh, { steps: 3, ...options, tiles: 3 });
    whole.losses.forEach((loss, step) => {
      expect(Math.abs(tiled.losses[step]! - loss) / loss).toBeLessThan(1e-5);
      expect(Math.abs(tiled.norms[step]! / whole.norms[step]! - 1)).toBeLessThan(1e-4);
    });
    expect(Math.abs(tiled.evaluation / whole.evaluation - 1)).toBeLessThan(1e-5);
  },
);

test("stages 0 to 3 give the same bits in tiles", async () => {
  const train2 = (stage: 0 | 1 | 2 | 3): Promise<TinyOutcome> =>
    train({ data: 2 }, { steps: 3, tiles: 3, zero: { stage } });
  const first = await train2(0);
  for (const stage of [1, 2, 3] as const) {
    const { losses, parameters } = await train2(stage);
    expect({ losses, parameters }).toEqual({ losses: first.losses, parameters: first.parameters });
  }
});
