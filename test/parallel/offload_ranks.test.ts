import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { offloadAll } from "../../src/train/offload/settings.ts";
import { withNativeRanks } from "./native_world.ts";
import { type TinyOutcome, type TinyTraining, trainTiny } from "./tiny_training.ts";

/** Several ranks with states on disk train bit for bit as with states in memory, at every stage of ZeRO. */

const folder = mkdtempSync(join(tmpdir(), "slipstream-offload-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const everything = { ...offloadAll(folder), subGroup: 512 };
const optimizer = { ...everything, parameters: false, gradients: false };

async function train(options: TinyTraining): Promise<unknown> {
  return await withNativeRanks({ data: 2 }, async (ranks) => {
    const outcome: TinyOutcome = await trainTiny(ranks, options);
    for (const engine of outcome.engines) engine.dispose();
    const { losses, norms, evaluation, parameters } = outcome;
    return { losses, norms, evaluation, parameters };
  });
}

const cases: readonly (readonly [string, TinyTraining])[] = [
  ["f32", { steps: 20 }],
  ["accumulating, recomputing every block", { accumulation: 2, recompute: { mode: "every_k", every: 1 } }],
];

test.each(cases)("no bit differs: %s", async (_, options) => {
  const expected = await train({ ...options, zero: { stage: 0 } });
  for (const stage of [0, 1, 2, 3] as const) {
    for (const offload of [optimizer, everything]) {
      expect(await train({ ...options, zero: { stage }, offload })).toEqual(expected);
    }
  }
  expect(readdirSync(folder)).toEqual([]);
});

test("stage 3 reads a copy of the parameters in bf16 for training in bf16", async () => {
  const options: TinyTraining = { dtype: "bf16", accumulation: 2, zero: { stage: 3 } };
  const offload = { ...everything, halfParameters: true };
  expect(await train({ ...options, offload })).toEqual(await train(options));
});
