import { describe, expect, test } from "vitest";
import { type Config, type Metrics, readSafetensors, Workplace } from "./support.ts";

const batch: Config = { train_batch_size: 8, train_micro_batch_size_per_gpu: 2 };
const validated: Config = { ...batch, data: { validation: 0.1 } };

/** What does not depend on the time that a run took. */
function curve(place: Workplace, output = "out") {
  return place
    .metrics(output)
    .map(({ step, loss, learning_rate, gradient_norm, tokens, evaluation_loss = null }) => ({
      ...{ step, loss, learning_rate, gradient_norm, tokens, evaluation_loss },
    }));
}

/** Expects two runs to have learned the same, in another order of sums. */
function expectSameCurve(actual: Metrics[], expected: Metrics[]): void {
  expect(actual.map(({ step, tokens }) => [step, tokens])).toEqual(
    expected.map(({ step, tokens }) => [step, tokens]),
  );
  for (const [index, { loss, gradient_norm }] of expected.entries()) {
    expect(Math.abs(actual[index]!.loss - loss) / loss).toBeLessThan(1e-5);
    expect(Math.abs(actual[index]!.gradient_norm! / gradient_norm! - 1)).toBeLessThan(1e-4);
  }
}

describe("ranks train what one rank trains", () => {
  test("the batch and the validation data are split over 2 and 4 ranks", async () => {
    using place = new Workplace();
    const config = place.config(validated);
    await place.train([config]);
    for (const ranks of ["2", "4"]) {
      const { output } = await place.train([config, "--ranks", ranks, "--set", `output_dir=out${ranks}`]);
      expect(output).toContain(`, data ${ranks}\n`);
      expectSameCurve(place.metrics(`out${ranks}`), place.metrics());
      const [own, alone] = [place.metrics(`out${ranks}`).at(-1)!, place.metrics().at(-1)!];
      expect(Math.abs(own.evaluation_loss! / alone.evaluation_loss! - 1)).toBeLessThan(1e-5);
      expect(place.list(`out${ranks}`)).toEqual(place.list("out"));
    }
  });

  test("every stage gives the same bits, in the metrics and in the model", async () => {
    using place = new Workplace();
    const config = place.config(validated);
    for (const stage of [0, 1, 2, 3]) {
      const sets = [
        `output_dir=out${stage}`,
        `zero_optimization.stage=${stage}`,
        "zero_optimization.stage3_param_persistence_threshold=0",
      ].flatMap((text) => ["--set", text]);
      await place.train([config, "--ranks", "2", ...sets]);
      expect(curve(place, `out${stage}`)).toEqual(curve(place, "out0"));
      expect(place.hash(`out${stage}`, "model", "model.safetensors")).toBe(
        place.hash("out0", "model", "model.safetensors"),
      );
    }
  });

  test.each([
    ["2", "parallel={tensor: 2}"],
    ["2", "parallel={sequence: 2}"],
    ["4", "parallel={tensor: 2, data: 2}"],
    ["2", "parallel={pipeline: 2}"],
    ["4", "parallel={pipeline: 2, data: 2}"],
    ["8", "parallel={tensor: 2, pipeline: 2, data: 2}"],
  ])("on %s ranks with %s", async (ranks, parallel) => {
    using place = new Workplace();
    const config = place.config(validated);
    await place.train([config]);
    await place.train([config, "--ranks", ranks, "--set", parallel, "--set", "output_dir=split"]);
    expectSameCurve(place.metrics("split"), place.metrics());
    const [own, alone] = [place.metrics("split").at(-1)!, place.metrics().at(-1)!];
    expect(Math.abs(own.evaluation_loss! / alone.evaluation_loss! - 1)).toBeLessThan(1e-5);
  });

  test.each([
    ["2", "mode: ring"],
    ["4", "mode: striped"],
    ["4", "mode: burst"],
    ["4", "mode: usp, ulysses_degree: 2"],
    ["4", "mode: loongtrain, ulysses_degree: 1, inner_ring: 2"],
  ])("on %s ranks of a sequence with %s", async (ranks, method) => {
    using place = new Workplace();
    const config = place.config(validated);
    await place.train([config]);
    const sets = [`parallel={sequence: ${ranks}}`, `sequence_parallel={${method}}`, "output_dir=split"];
    await place.train([config, "--ranks", ranks, ...sets.flatMap((text) => ["--set", text])]);
    expectSameCurve(place.metrics("split"), place.metrics());
  });

  test("fine-tuning at stage 3 starts from the weights of the folder", async () => {
    using place = new Workplace();
    await place.train([place.config({ ...batch, output_dir: "base", max_steps: 2 })]);
    const config = "config.json";
    place.write(
      config,
      JSON.stringify({
        ...batch,
        model: { path: "base/model" },
        data: { train: "text.txt", sequence_length: 32 },
        output_dir: "out",
        max_steps: 3,
      }),
    );
    await place.train([config]);
    const stage = ["zero_optimization.stage=3", "zero_optimization.stage3_param_persistence_threshold=0"];
    const sets = [...stage, "output_dir=split"].flatMap((text) => ["--set", text]);
    await place.train([config, "--ranks", "2", ...sets]);
    expectSameCurve(place.metrics("split"), place.metrics());
    const model = (output: string) => readSafetensors(place.path(output, "model", "model.safetensors"));
    expect([...model("split").keys()]).toEqual([...model("out").keys()]);
  });
});

describe("a run goes on", () => {
  test("from half the steps at stage 3 to the bits of the whole run", async () => {
    using place = new Workplace();
    const config = place.config({ ...batch, zero_optimization: { stage: 3 } });
    await place.train([config, "--ranks", "2", "--set", "output_dir=whole"]);
    await place.train([config, "--ranks", "2", "--set", "max_steps=10"]);
    const { output } = await place.train([config, "--ranks", "2", "--resume"]);
    expect(output).toContain("resumed from out/checkpoints/step-10\n");
    expect(curve(place)).toEqual(curve(place, "whole"));
  });

  test.each([
    ["4", "1", "2 micro x 4 accumulation x 1 rank, on 4 before"],
    ["1", "2", "2 micro x 2 accumulation x 2 ranks, on 1 before"],
  ])("from %s ranks on %s, the batch held", async (before, after, held) => {
    using place = new Workplace();
    const config = place.config({ ...batch, zero_optimization: { stage: 2 } });
    await place.train([config, "--set", "output_dir=whole"]);
    await place.train([config, "--ranks", before, "--set", "max_steps=10"]);
    const { output } = await place.train([config, "--ranks", after, "--resume"]);
    expect(output).toContain(`the checkpoint's batch of 8 rows is held: ${held}\n`);
    expectSameCurve(place.metrics(), place.metrics("whole"));
  });

  test("Ctrl-C stops all ranks after one step, with a checkpoint to resume from", async () => {
    using place = new Workplace();
    const config = place.config({ ...batch, max_steps: 2000, steps_per_print: 1 });
    const running = place.start(["train", config, "--ranks", "2"]);
    await running.seen(/step 5\//);
    running.child.kill("SIGINT");
    const { status, output, errors } = await running.done;
    expect([status, errors]).toEqual([130, ""]);
    const step = Number(/stopped after step (\d+)/.exec(output)?.[1]);
    expect(output).toContain(`resume with: slipstream train config.json --ranks 2 --resume\n`);
    expect(place.metrics().at(-1)?.step).toBe(step);
    const more = await place.train([config, "--ranks", "2", "--resume", "--set", `max_steps=${step + 2}`]);
    expect(more.output).toContain(`resumed from out/checkpoints/step-${step}\n`);
  });
});
