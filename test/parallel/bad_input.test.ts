import { readdirSync, rmSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createLocalWorld } from "../../src/backends.ts";
import { requireSameRun } from "../../src/train/agreement.ts";
import { type Config, message, Workplace } from "../e2e/support.ts";

const batch: Config = { train_batch_size: 8, train_micro_batch_size_per_gpu: 2, max_steps: 3 };

/** Runs a wrong command line, and expects one error, of this status, and nothing else. */
async function refusal(place: Workplace, parameters: readonly string[], status = 2): Promise<string> {
  const outcome = await place.run(["train", ...parameters]);
  expect([outcome.status, /^\s+at /m.test(outcome.errors)]).toEqual([status, false]);
  return outcome.errors;
}

function sets(...overrides: string[]): string[] {
  return overrides.flatMap((override) => ["--set", override]);
}

describe("what cannot be run on so many ranks is refused with one error, and nothing is written", () => {
  test.each([
    [
      "a mesh that does not multiply to the ranks",
      ["--ranks", "4", ...sets("parallel={data: 3}")],
      message("the axes of the mesh do not multiply to the number of ranks", {
        where: "parallel",
        expected: "4 ranks",
        received: "data 3 = 3",
        hint: "set parallel.data to 4, or leave it out",
      }),
    ],
    [
      "heads that the tensor axis does not divide",
      ["--ranks", "4", ...sets("parallel={tensor: 4}")],
      message("2 key and value heads cannot be split over the tensor axis", {
        where: "parallel.tensor",
        expected: "one of 1, 2",
        received: "4",
      }),
    ],
    [
      "heads that Ulysses does not divide",
      ["--ranks", "8", ...sets("parallel={sequence: 8}")],
      message("4 attention heads cannot be split over the ranks that split heads", {
        where: "parallel.sequence",
        expected: "one of 1, 2, 4",
        received: "8",
      }),
    ],
    [
      "more stages than layers",
      ["--ranks", "4", ...sets("parallel={pipeline: 4}")],
      message("the model has too few layers for the pipeline", {
        where: "parallel.pipeline",
        expected: "at most 2 parts (one layer each)",
        received: "4 stages = 4",
      }),
    ],
    [
      "a batch that the ranks do not divide",
      ["--ranks", "3"],
      message("the batch sizes do not multiply out", {
        where: "train_batch_size",
        expected: "train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks",
        received: "8 = 2 micro x ? accumulation x 3 ranks, and 8 does not divide by 6",
        hint: "set train_batch_size to a multiple of 6, such as 6",
      }),
    ],
  ])("%s", async (_, parameters, expected) => {
    using place = new Workplace();
    expect(await refusal(place, [place.config(batch), ...parameters])).toBe(expected);
    const left = readdirSync(place.path()).includes("out") ? place.list("out") : [];
    expect(left.filter((name) => !["cache", "tokenizer"].includes(name))).toEqual([]);
  });

  test("a stage and a schedule that exclude each other", async () => {
    using place = new Workplace();
    const wrong = sets("parallel.pipeline=2", "zero_optimization.stage=3");
    const errors = await refusal(place, [place.config(batch), "--ranks", "2", ...wrong]);
    expect(errors).toContain("a pipeline and zero_optimization.stage 3 exclude each other\n");
    expect(place.list()).not.toContain("out");
  });

  test("states on a disk that no path names, or that is not there", async () => {
    using place = new Workplace();
    const config = place.config({
      ...batch,
      zero_optimization: { stage: 3, offload_optimizer: { device: "nvme" } },
    });
    expect(await refusal(place, [config, "--ranks", "2"])).toContain(
      "there is no folder for the optimizer states on disk\n",
    );
    const missing = sets(`memory.nvme_path=${place.path("absent")}`);
    const errors = await refusal(place, [config, ...missing]);
    expect(errors).toContain("the folder for states on disk does not exist\n");
    expect(errors).toContain(place.path("absent"));
  });
});

describe("a checkpoint with a part missing", () => {
  test("is passed over for the one before it, and refused where there is none", async () => {
    using place = new Workplace();
    const config = place.config({
      ...batch,
      max_steps: 4,
      checkpoint: { every_steps: 2 },
      zero_optimization: { stage: 1 },
    });
    await place.train([config, "--ranks", "2"]);
    const shards = (step: string) =>
      place.list("out", "checkpoints", step).filter((name) => name.endsWith(".safetensors"));
    expect(shards("step-4").length).toBe(2);
    rmSync(place.path("out", "checkpoints", "step-4", shards("step-4")[1]!));
    const longer = sets("max_steps=5");
    const { output } = await place.train([config, "--ranks", "2", "--resume", ...longer]);
    expect(output).toContain("resumed from out/checkpoints/step-2\n");
    for (const step of ["step-4", "step-5"]) {
      for (const shard of shards(step)) rmSync(place.path("out", "checkpoints", step, shard));
    }
    rmSync(place.path("out", "checkpoints", "step-2"), { recursive: true, force: true });
    const errors = await refusal(place, [config, "--ranks", "2", "--resume", ...longer]);
    expect(errors).toContain("there is no complete checkpoint to resume from\n");
  });
});

describe("ranks that were started with different configs", () => {
  test("all fail with the keys, their values and the ranks", async () => {
    const worlds = createLocalWorld(3, { timeoutSeconds: 10 });
    const abouts = [
      { config: { seed: 1, optimizer: { lr: 0.1 } } },
      { config: { seed: 1, optimizer: { lr: 0.1 } } },
      { config: { seed: 2, optimizer: { lr: 0.2 } } },
    ];
    const results = await Promise.allSettled(
      worlds.map((world, rank) => requireSameRun(world, abouts[rank]!)),
    );
    for (const world of worlds) world.close();
    const messages = results.map((result) =>
      result.status === "rejected" ? (result.reason as Error).message : "no error",
    );
    const expected = [
      "the ranks were started with different configs",
      "    config.seed: 1 on rank 0, 2 on rank 2",
      "    config.optimizer.lr: 0.1 on rank 0, 0.2 on rank 2",
      "  to do:    start every rank with the same config, overrides and files",
    ].join("\n");
    expect(messages).toEqual([expected, expected, expected]);
  });
});
