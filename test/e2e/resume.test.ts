import { cpSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type Config, message, Workplace } from "./support.ts";

const checkpoint = ["out", "checkpoints", "step-20", "tensors.safetensors"] as const;

/** What training to step 20 leaves: every loss and gradient norm, the weights and the optimizer's state. */
async function straight(changes: Config): Promise<{ curve: unknown[]; tensors: string; model: string }> {
  using place = new Workplace();
  await place.train([place.config(changes)]);
  return result(place);
}

function result(place: Workplace): { curve: unknown[]; tensors: string; model: string } {
  return {
    curve: place
      .metrics()
      .map((line) => [line.step, line.loss, line.gradient_norm, line.learning_rate, line.tokens]),
    tensors: place.hash(...checkpoint),
    model: place.hash("out", "model", "model.safetensors"),
  };
}

const schedule = {
  scheduler: { type: "WarmupCosineLR", params: { total_num_steps: 20, warmup_num_steps: 5 } },
};

describe("10 steps and a resume to 20 give the bits of 20 steps", () => {
  const cases: Record<string, Config> = {
    "float32, in mid-epoch, with a schedule": schedule,
    "bf16 with accumulation": { bf16: { enabled: true }, gradient_accumulation_steps: 3, ...schedule },
    "fp16 with its loss scale": { fp16: { enabled: true, initial_scale_power: 8, loss_scale_window: 6 } },
    "best-fit packing, over the end of an epoch, recomputing": {
      data: { packing: "best_fit" },
      train_micro_batch_size_per_gpu: 16,
      gradient_clipping: 0.5,
      activation_checkpointing: { mode: "every_block" },
    },
  };
  for (const [name, changes] of Object.entries(cases)) {
    test(name, async () => {
      using place = new Workplace();
      const whole = straight(changes);
      const config = place.config(changes);
      await place.train([config, "--set", "max_steps=10"]);
      const { epoch } = place.metrics().at(-1)!;
      expect(epoch! % 1).not.toBe(0);
      const { output } = await place.train([config, "--resume"]);
      expect(output).toContain("resumed from out/checkpoints/step-10\n");
      expect(result(place)).toEqual(await whole);
    });
  }
});

describe("what resuming refuses and survives", () => {
  test("a finished run that is resumed says so, and repeats nothing", async () => {
    using place = new Workplace();
    const config = place.config({ max_steps: 4 });
    const { output: first } = await place.train([config]);
    const before = place.read("out", "metrics.jsonl");
    const { output } = await place.train([config, "--resume"]);
    const ending = /^4 steps in .*: loss \d\.\d{4}$/m;
    expect(ending.exec(output)?.[0]).toBe(ending.exec(first)?.[0]);
    expect(place.read("out", "metrics.jsonl")).toBe(before);
  });

  test("a config that contradicts the checkpoint names every key with both values", async () => {
    using place = new Workplace();
    const config = place.config({ max_steps: 2 });
    await place.train([config]);
    const before = place.hash("out", "checkpoints", "step-2", "tensors.safetensors");
    const metrics = place.read("out", "metrics.jsonl");
    const contradictions: [string[], string[]][] = [
      [["model.hidden_size=64"], ["model.hidden_size: 32 in the checkpoint, 64 in the config"]],
      [
        ["train_micro_batch_size_per_gpu=4"],
        ["train_micro_batch_size_per_gpu: 2 in the checkpoint, 4 in the config"],
      ],
      [
        ["optimizer.params.lr=0.1", "seed=4"],
        [
          "seed: 3 in the checkpoint, 4 in the config",
          "optimizer.params.lr: 0.003 in the checkpoint, 0.1 in the config",
        ],
      ],
      [["bf16.enabled=true"], ["bf16.enabled: false in the checkpoint, true in the config"]],
      [
        ["optimizer={type: Lion}"],
        [
          'optimizer.type: "AdamW" in the checkpoint, "Lion" in the config',
          "optimizer.params.lr: 0.003 in the checkpoint, 0.0001 in the config",
          "optimizer.params.betas[1]: 0.999 in the checkpoint, 0.99 in the config",
          "optimizer.params.eps: 1e-8 in the checkpoint, not set in the config",
        ],
      ],
    ];
    await Promise.all(
      contradictions.map(async ([overrides, keys]) => {
        // A folder of its own, since all of these run at the same time.
        const output = `out-${overrides.join("-").replaceAll(/\W/g, "")}`;
        cpSync(place.path("out"), place.path(output), { recursive: true });
        const sets = [`output_dir=${output}`, "max_steps=9", ...overrides].flatMap((text) => ["--set", text]);
        const outcome = await place.run(["train", config, "--resume", ...sets]);
        expect(outcome).toMatchObject({ status: 2, output: "" });
        const count = keys.length === 1 ? "1 key" : `${keys.length} keys`;
        expect(outcome.errors).toBe(
          message(
            [
              `the config contradicts the checkpoint that the run resumes from, in ${count}`,
              ...keys.map((key) => `    ${key}`),
            ].join("\n"),
            { hint: "set these keys as they were, or start a new run in another output_dir" },
          ),
        );
        expect(place.list(output, "checkpoints")).toEqual(["step-2"]);
        expect(place.hash(output, "checkpoints", "step-2", "tensors.safetensors")).toBe(before);
        expect(place.read(output, "metrics.jsonl")).toBe(metrics);
        expect(place.list(output)).not.toContain("run.lock");
      }),
    );
  });

  test("data that changed since the checkpoint is refused", async () => {
    using place = new Workplace();
    const config = place.config({ max_steps: 2 });
    await place.train([config]);
    place.write("text.txt", `${place.read("text.txt")}One more line, which moves every row.\n`);
    const { status, errors } = await place.run(["train", config, "--resume", "--set", "max_steps=4"]);
    expect(status).toBe(2);
    expect(errors).toContain("the checkpoint's place in the data does not fit this run\n");
    expect(errors).toContain(
      "  to do:    the data, its split or the tokenizer has changed since: use the same, or start a new run\n",
    );
    expect(place.list("out", "checkpoints")).toEqual(["step-2"]);
    expect(place.metrics().length).toBe(2);
  });

  test("a new run does not write over a finished one, and there must be something to resume", async () => {
    using place = new Workplace();
    const config = place.config({ max_steps: 2 });
    const early = await place.run(["train", config, "--resume"]);
    expect(early).toEqual({
      status: 2,
      output: "",
      errors: message("there is no complete checkpoint to resume from", {
        where: "out/checkpoints",
        hint: "leave out --resume to start from the beginning",
      }),
    });
    await place.train([config]);
    const before = place.read("out", "metrics.jsonl");
    expect(await place.run(["train", config])).toEqual({
      status: 2,
      output: "",
      errors: message("output_dir already holds the checkpoints of a run", {
        where: "out/checkpoints",
        hint: "add --resume to continue it, or choose another output_dir",
      }),
    });
    expect(place.read("out", "metrics.jsonl")).toBe(before);
    expect(place.list("out", "checkpoints")).toEqual(["step-2"]);
  });

  test("two runs in one output_dir: the second is told who holds it, and the first goes on", async () => {
    using place = new Workplace();
    const config = place.config({ max_steps: 100_000, steps_per_print: 1 });
    const first = place.start(["train", config]);
    await first.seen(/step 2\//);
    for (const parameters of [
      ["train", config],
      ["train", config, "--resume"],
    ]) {
      const { status, output, errors } = await place.run(parameters);
      expect({ status, output }).toEqual({ status: 2, output: "" });
      expect(errors).toMatch(
        new RegExp(
          [
            "^another run is writing into this output_dir",
            "  where:    out",
            "  expected: one run in an output_dir at a time",
            `  received: process ${first.child.pid} on \\S+, since \\S+Z`,
            "  to do:    wait for it or stop it, or set another output_dir\n$",
          ].join("\n"),
        ),
      );
    }
    first.child.kill("SIGINT");
    expect((await first.done).status).toBe(130);
    expect(place.list("out")).not.toContain("run.lock");
  });
});
