import { afterAll, expect, test } from "vitest";
import { Workplace } from "./support.ts";

const place = new Workplace();
afterAll(() => place[Symbol.dispose]());

const checkpoint = { every_steps: 2, keep_last: 10 };

test.each([
  { name: "one rank", ranks: [], files: ["tensors.safetensors"] },
  {
    name: "two ranks that hold parts of everything",
    ranks: ["--ranks", "2", "--set", "zero_optimization.stage=3"],
    files: ["tensors-00001-of-00002.safetensors", "tensors-00002-of-00002.safetensors"],
  },
])(
  "checkpoints that are written while training goes on hold what others hold: $name",
  async ({ ranks, files }) => {
    const hashes = [];
    for (const async of [false, true]) {
      const output = `out-${ranks.length}-${async}`;
      const config = place.config({
        output_dir: output,
        max_steps: 6,
        train_batch_size: 8,
        train_micro_batch_size_per_gpu: 4,
        checkpoint: { ...checkpoint, async },
      });
      await place.train([config, ...ranks]);
      hashes.push(
        [2, 4, 6].flatMap((step) =>
          files.map((file) => place.hash(output, "checkpoints", `step-${step}`, file)),
        ),
      );
    }
    expect(hashes[1]).toEqual(hashes[0]);
    expect(new Set(hashes[0]).size).toBe(3 * files.length);
  },
);
