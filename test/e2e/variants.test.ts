import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Config, floats, readSafetensors, root, Workplace } from "./support.ts";

const place = new Workplace();
afterAll(() => {
  place[Symbol.dispose]();
});

let runs = 0;
/** Trains the tiny config with changes and gives the losses, and the run's folder. */
async function train(
  changes: Config,
  environment: NodeJS.ProcessEnv = {},
): Promise<{ losses: number[]; folder: string; output: string }> {
  const folder = `run-${++runs}`;
  const config = place.config({ output_dir: folder, ...changes }, `${folder}.json`);
  const { output } = await place.train([config], environment);
  return { losses: place.losses(folder), folder, output };
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** The mean of the last losses must lie well below that of the first. */
function expectFalling(losses: readonly number[], by: number): void {
  expect(losses.every(Number.isFinite)).toBe(true);
  expect(mean(losses.slice(-3))).toBeLessThan(mean(losses.slice(0, 3)) - by);
}

let float32: number[];
beforeAll(async () => {
  float32 = (await train({})).losses;
});

describe("precisions and optimizers", () => {
  test("bf16 stays near float32", async () => {
    const { losses } = await train({ bf16: { enabled: true } });
    losses.forEach((loss, step) => void expect(Math.abs(loss / float32[step]! - 1)).toBeLessThan(0.02));
  });

  test("fp16 with dynamic loss scaling: overflows skip updates and halve the scale, which is in the metrics", async () => {
    const fp16 = { enabled: true, initial_scale_power: 28, loss_scale_window: 8, hysteresis: 1 };
    const { losses, folder } = await train({ fp16, max_steps: 40 });
    const lines = place.metrics(folder);
    const scales = lines.map(({ loss_scale: scale }) => scale!);
    const skipped = lines.map(({ skipped_steps: count }) => count!);
    // 2^28 times any gradient of this model overflows half precision; the scale halves until it does not.
    expect(skipped[0]).toBe(1);
    expect(scales[0]).toBe(2 ** 27);
    expect(Math.max(...scales.slice(-8))).toBeLessThan(2 ** 27);
    for (let step = 1; step < lines.length; step++) {
      const overflowed = skipped[step]! > skipped[step - 1]!;
      const ratio = scales[step]! / scales[step - 1]!;
      expect(overflowed ? [0.5] : [1, 2], `step ${step + 1}`).toContain(ratio);
    }
    // A skipped update leaves the weights alone; the others learn.
    expectFalling(losses, 0.4);
  });

  const optimizers: Record<string, Config> = {
    Adam: { lr: 0.003, adam_w_mode: false, weight_decay: 0.01 },
    SGD: { lr: 0.1, momentum: 0.5 },
    Lion: { lr: 0.001 },
    Adagrad: { lr: 0.02 },
  };
  for (const [type, params] of Object.entries(optimizers)) {
    test(`${type} lowers the loss`, async () => {
      expectFalling((await train({ optimizer: { type, params } })).losses, 0.4);
    });
  }
});

describe("what may not change a single bit", () => {
  test("threads", async () => {
    for (const threads of ["1", "3"]) {
      expect((await train({}, { SLIPSTREAM_THREADS: threads })).losses, `${threads} threads`).toEqual(
        float32,
      );
    }
  });

  test("recomputed activations, in every mode", async () => {
    const deep = { model: { num_hidden_layers: 5 }, max_steps: 8 };
    const { losses: kept } = await train(deep);
    for (const recompute of [
      { mode: "every_block" },
      { mode: "every_k", every: 2 },
      { mode: "sqrt" },
      { mode: "budget", memory_budget: "200KiB" },
    ]) {
      const { losses } = await train({ ...deep, activation_checkpointing: recompute });
      expect(losses, recompute.mode).toEqual(kept);
    }
  });
});

test("lower instruction sets give close losses", async () => {
  for (const isa of ["scalar", "avx2"]) {
    if (isa === "avx2" && process.arch !== "x64") continue;
    const { losses } = await train({}, { SLIPSTREAM_ISA: isa });
    losses.forEach((loss, step) => void expect(Math.abs(loss / float32[step]! - 1), isa).toBeLessThan(1e-3));
  }
});

describe("models and data", () => {
  test("GPT-2 from scratch", async () => {
    const model = { type: "gpt2", n_embd: 32, n_layer: 2, n_head: 4, n_positions: 64 };
    const { losses, folder } = await train({ model });
    expectFalling(losses, 0.4);
    expect(JSON.parse(place.read(folder, "model", "config.json"))).toMatchObject({
      model_type: "gpt2",
      architectures: ["GPT2LMHeadModel"],
    });
    const { status } = await place.run([
      "generate",
      `${folder}/model`,
      "--prompt",
      "The",
      "--max-tokens",
      "3",
    ]);
    expect(status).toBe(0);
  });

  test("a sliding window over packed documents, in JSONL", async () => {
    const lines = place
      .read("text.txt")
      .split("\n")
      .map((text) => JSON.stringify({ text }));
    place.write("documents.jsonl", lines.join("\n"));
    const model = {
      type: "mistral",
      hidden_size: 32,
      num_hidden_layers: 2,
      num_attention_heads: 4,
      num_key_value_heads: 1,
      intermediate_size: 48,
      sliding_window: 5,
      max_position_embeddings: 64,
    };
    for (const packing of ["rows", "best_fit"]) {
      expectFalling((await train({ model, data: { train: "documents.jsonl", packing } })).losses, 0.4);
    }
  });

  test("prompts and completions: the loss is that of the completions alone", async () => {
    // Completions are always the same word: they are learnt at once, which the random prompts cannot be.
    const lines = Array.from({ length: 200 }, (_, index) =>
      JSON.stringify({ question: `${(index * 7919) % 1000}-${(index * 104_729) % 997}?`, answer: " yes" }),
    );
    place.write("questions.jsonl", lines.join("\n"));
    const data = { train: "questions.jsonl", prompt_field: "question", completion_field: "answer" };
    const { losses } = await train({
      data,
      max_steps: 40,
      optimizer: { type: "AdamW", params: { lr: 0.01 } },
    });
    expect(losses.at(-1)).toBeLessThan(0.2);
  });

  test("stop_at_loss stops there and reports the time", async () => {
    const { losses, output } = await train({ stop_at_loss: 4.5, max_steps: 200 });
    expect(losses.length).toBeLessThan(200);
    expect(losses.at(-1)).toBeLessThanOrEqual(4.5);
    expect(losses.slice(0, -1).every((loss) => loss > 4.5)).toBe(true);
    expect(output).toMatch(/^reached loss 4\.5 after \d+s$/m);
    const unreached = await train({ stop_at_loss: 0.01, max_steps: 3 });
    expect(unreached.output).toContain("did not reach loss 0.01\n");
  });

  test("evaluations, samples and TensorBoard files appear when they are due", async () => {
    const { output, folder } = await train({
      data: { validation: 0.1 },
      max_steps: 7,
      evaluation: { every_steps: 3, max_batches: 2 },
      samples: { every_steps: 3, prompts: ["The otter", "Quietly"], max_tokens: 4, temperature: 1 },
      tensorboard: { enabled: true },
      wall_clock_breakdown: true,
      steps_per_print: 7,
    });
    const evaluated = place.metrics(folder).filter(({ evaluation_loss: loss }) => loss !== undefined);
    expect(evaluated.map(({ step }) => step)).toEqual([3, 6, 7]);
    for (const prompt of ["The otter", "Quietly"]) {
      expect(output.match(new RegExp(`^sample: ${prompt}`, "gm"))?.length, prompt).toBe(3);
    }
    expect(output).toMatch(/^step 7: data .* ms, kernels .* ms, outside of kernels .* ms \(.*%\)$/m);
    expect(place.list(folder, "tensorboard", "slipstream")[0]).toMatch(/tfevents/);
  });
});

const stories = resolve(root, "../shared/data/stories260K");
const base = existsSync(stories) ? stories : undefined;

describe("fine-tuning", () => {
  test(`a model folder: the loss falls from the model's own, and frozen parameters stay as they are (${base === undefined ? "a model made here: shared/data is absent" : "stories260K"})`, async () => {
    const model = base ?? `${(await train({})).folder}/model`;
    const { losses, folder } = await train({
      model: { path: model, type: undefined },
      tokenizer: undefined,
      frozen_parameters: ["model.embed_tokens.*", "model.layers.0.*"],
      optimizer: { type: "AdamW", params: { lr: 0.001, weight_decay: 0.1 } },
    });
    expectFalling(losses, 0.2);
    const before = readSafetensors(resolve(place.folder, model, "model.safetensors"));
    const after = readSafetensors(place.path(folder, "model", "model.safetensors"));
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    let frozen = 0;
    for (const [name, tensor] of after) {
      const same = Buffer.compare(tensor.bytes, before.get(name)!.bytes) === 0;
      const isFrozen = /^model\.(embed_tokens|layers\.0)\./.test(name);
      expect(same, name).toBe(isFrozen);
      frozen += Number(isFrozen);
      expect(floats(tensor).every(Number.isFinite), name).toBe(true);
    }
    expect(frozen).toBe(10);
  });
});

describe("the smallest of everything", () => {
  const smallest: Record<string, Config> = {
    "one step, one row, rows of two tokens": {
      max_steps: 1,
      train_micro_batch_size_per_gpu: 1,
      data: { sequence_length: 2 },
    },
    "one head, one layer, the smallest vocabulary": {
      tokenizer: { train: { vocabulary_size: 258 } },
      model: {
        type: "llama",
        hidden_size: 2,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        intermediate_size: 1,
        max_position_embeddings: 32,
      },
    },
    "a row of the model's last position": {
      data: { sequence_length: 64 },
      train_micro_batch_size_per_gpu: 1,
    },
  };
  for (const [name, changes] of Object.entries(smallest)) {
    test(name, async () => {
      const { losses, folder } = await train(changes);
      expect(losses.every((loss) => Number.isFinite(loss) && loss > 0)).toBe(true);
      const { status } = await place.run([
        "generate",
        `${folder}/model`,
        "--prompt",
        "T",
        "--max-tokens",
        "2",
        "--json",
      ]);
      expect(status).toBe(0);
    });
  }

  test("documents of one token among others", async () => {
    const documents = Array.from({ length: 100 }, (_, id) =>
      JSON.stringify({ text: id % 9 === 0 ? [3, 4, 5] : [id] }),
    );
    place.write("ids.jsonl", documents.join("\n"));
    const { losses, folder } = await train({
      model: { path: `${(await train({ max_steps: 1 })).folder}/model`, type: undefined },
      tokenizer: undefined,
      data: { train: "ids.jsonl", validation: 0.4 },
      evaluation: { every_steps: 1 },
      max_steps: 10,
    });
    expectFalling(losses, 0.5);
    for (const { evaluation_loss: loss } of place.metrics(folder)) expect(loss).toEqual(expect.any(Number));
  });
});
