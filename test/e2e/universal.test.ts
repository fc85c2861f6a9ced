import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  floats,
  message,
  readSafetensors,
  root,
  type StoredTensor,
  Workplace,
  writeSafetensors,
} from "./support.ts";

/** DeepSpeed's universal checkpoints as a person meets them. They are written here, without the code under test. */
const llama = join(root, "test/golden/models/llama");

/** A tensor of F32 values. */
function stored(values: Float32Array, shape: readonly number[]): StoredTensor {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { dtype: "F32", shape: [...shape], bytes };
}

/** Writes one file of a universal checkpoint. */
function writeState(folder: string, parameter: string, state: string, tensor: StoredTensor): void {
  mkdirSync(join(folder, "zero", parameter), { recursive: true });
  writeSafetensors(join(folder, "zero", parameter, `${state}.safetensors`), new Map([["param", tensor]]));
}

/** The model of `test/golden` as a checkpoint after 10 steps; moments are made up. */
function writeLlama(folder: string): void {
  for (const [name, tensor] of readSafetensors(join(llama, "model.safetensors"))) {
    const weights = floats(tensor);
    writeState(folder, `module.${name}`, "fp32", tensor);
    writeState(
      folder,
      `module.${name}`,
      "exp_avg",
      stored(
        weights.map((value) => value / 8),
        tensor.shape,
      ),
    );
    const squares = stored(
      weights.map((value) => value * value),
      tensor.shape,
    );
    writeState(folder, `module.${name}`, "exp_avg_sq", squares);
  }
  // What DeepSpeed puts beside; it is never opened.
  writeFileSync(join(folder, "mp_rank_00_model_states.pt"), "a pickle");
}

describe("a checkpoint of a known model", () => {
  const place = new Workplace();
  const source = "global_step10_universal";
  beforeAll(() => writeLlama(place.path(source)));
  afterAll(() => place[Symbol.dispose]());

  test("becomes a folder that gives PyTorch's loss, with moments beside", async () => {
    const outcome = await place.run(["convert", source, "model", "--model", llama]);
    expect(outcome).toEqual({
      status: 0,
      errors: "",
      output: [
        `model: f32, without a tokenizer: ${llama} has none`,
        "model/checkpoint/step-10: weights and Adam's moments",
        "to continue training: model.path and checkpoint.load_universal: model",
        "",
      ].join("\n"),
    });
    const { sequences, loss } = JSON.parse(readFileSync(join(llama, "golden.json"), "utf8"));
    place.write("ids.json", JSON.stringify(sequences));
    const evaluated = await place.run(["eval", "model", "--ids-file", "ids.json"]);
    expect((JSON.parse(evaluated.output) as { loss: number }).loss).toBeCloseTo(loss, 4);

    const original = readSafetensors(join(llama, "model.safetensors"));
    const saved = readSafetensors(place.path("model/checkpoint/step-10/tensors.safetensors"));
    expect(saved.size).toBe(3 * original.size);
    for (const [name, tensor] of original) {
      const weights = floats(tensor);
      expect(floats(saved.get(`parameters/${name}`)!)).toEqual(weights);
      expect(floats(saved.get(`first_moment/${name}`)!)).toEqual(weights.map((value) => value / 8));
      expect(floats(saved.get(`second_moment/${name}`)!)).toEqual(weights.map((value) => value * value));
    }
  });

  test("is found through latest_universal, and has its config.json beside", async () => {
    mkdirSync(place.path("run"));
    writeLlama(place.path("run", source));
    place.write("run/latest_universal", `${source}\n`);
    place.write(`run/${source}/config.json`, readFileSync(join(llama, "config.json")));
    const { status, errors } = await place.run(["convert", "run", "from-run", "--type", "bf16"]);
    expect({ status, errors }).toEqual({ status: 0, errors: "" });
    const weights = readSafetensors(place.path("from-run/model.safetensors"));
    expect(new Set([...weights.values()].map(({ dtype }) => dtype))).toEqual(new Set(["BF16"]));
  });

  test("without moments becomes a folder alone", async () => {
    for (const [name, tensor] of readSafetensors(join(llama, "model.safetensors")))
      writeState(place.path("weights"), name, "fp32", tensor);
    const { status, output } = await place.run(["convert", "weights", "plain", "--model", llama]);
    expect(status).toBe(0);
    expect(output).toContain("the checkpoint has no moments (exp_avg, exp_avg_sq): weights only\n");
    expect(place.list("plain")).toEqual(["config.json", "model.safetensors"]);
    const saved = readSafetensors(place.path("plain/model.safetensors"));
    for (const [name, tensor] of readSafetensors(join(llama, "model.safetensors")))
      expect(floats(saved.get(name)!)).toEqual(floats(tensor));
  });

  test("moments without a count of steps are refused", async () => {
    mkdirSync(place.path("stepless"));
    writeLlama(place.path("stepless"));
    const { status, errors } = await place.run(["convert", "stepless", "new", "--model", llama]);
    expect(status).toBe(1);
    expect(errors).toContain("rename the folder to global_stepN_universal, N the steps done");
    expect(place.list()).not.toContain("new");
  });

  test.each<[string, string[], string]>([
    [
      "no config",
      [source, "new"],
      message("a universal checkpoint alone does not say which model it is of", {
        where: source,
        expected: "config.json (and tokenizer.json) in the folder, or --model FOLDER",
        hint: "give the Hugging Face folder that the training began from: --model FOLDER",
      }),
    ],
    [
      "a GGUF file as its target",
      [source, "new.gguf", "--model", llama],
      message("a universal checkpoint becomes a folder of floats", {
        expected: "a folder as TARGET, with --type f32, bf16 or f16",
        received: "new.gguf",
        hint: "convert it into a folder, then convert that",
      }),
    ],
    [
      "--model with another source",
      [llama, "new", "--model", llama],
      message("--model goes with a universal checkpoint of DeepSpeed alone", {
        expected: "a SOURCE with a folder zero/ in it",
        received: llama,
        hint: "leave out --model: other sources have their own config",
      }),
    ],
  ])("%s is refused", async (_, parameters, text) => {
    const { status, errors } = await place.run(["convert", ...parameters]);
    expect(errors).toBe(text);
    expect(status).toBeGreaterThan(0);
    expect(place.list()).not.toContain("new");
  });

  test("another model's config is refused, naming the parameters", async () => {
    const config = JSON.parse(readFileSync(join(llama, "config.json"), "utf8"));
    mkdirSync(place.path("other"));
    place.write("other/config.json", JSON.stringify({ ...config, vocab_size: 128, num_hidden_layers: 1 }));
    const { status, errors } = await place.run(["convert", source, "new", "--model", "other"]);
    expect(status).toBe(1);
    expect(errors).toContain(
      "wrong shape: model.embed_tokens.weight, expected [128, 48], received [101, 48]",
    );
    expect(errors).toContain("extra: model.layers.1.");
    expect(errors).toContain("check that other/config.json belongs to this checkpoint");
    expect(place.list()).not.toContain("new");
  });
});

describe("pickles are refused, with why and what to do", () => {
  test("a universal checkpoint as DeepSpeed writes it", async () => {
    using place = new Workplace();
    mkdirSync(place.path("global_step4_universal/zero/model.norm.weight"), { recursive: true });
    for (const state of ["fp32", "exp_avg", "exp_avg_sq", "step"])
      place.write(`global_step4_universal/zero/model.norm.weight/${state}.pt`, "a pickle");
    const { status, errors } = await place.run([
      "convert",
      "global_step4_universal",
      "model",
      "--model",
      llama,
    ]);
    expect(status).toBe(1);
    expect(errors).toBe(
      message(
        "the checkpoint is pickled: reading a pickle runs whatever code is in it, so Slipstream reads none",
        {
          where: "global_step4_universal",
          expected: "zero/NAME/fp32.safetensors, exp_avg.safetensors and exp_avg_sq.safetensors",
          received: "zero/model.norm.weight/fp32.pt, and 2 more",
          hint: [
            "if you trust the files, convert them once in Python, with torch and safetensors:",
            "    import pathlib, torch",
            "    from safetensors.torch import save_file",
            '    for path in pathlib.Path("global_step4_universal").glob("zero/*/*.pt"):',
            '        value = torch.load(path, map_location="cpu", weights_only=True)',
            '        tensor = torch.as_tensor(value["param"] if isinstance(value, dict) else value)',
            '        save_file({"param": tensor.detach().clone().contiguous()}, path.with_suffix(".safetensors"))',
          ].join("\n"),
        },
      ),
    );
    expect(place.list()).not.toContain("model");
  });

  test("a checkpoint of DeepSpeed's ranks", async () => {
    using place = new Workplace();
    mkdirSync(place.path("global_step4"));
    place.write("global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt", "a pickle");
    const { status, errors } = await place.run(["convert", "global_step4", "model", "--model", llama]);
    expect(status).toBe(1);
    expect(errors).toMatch(
      /^this is a checkpoint of DeepSpeed's ranks, pickled: reading a pickle runs whatever/,
    );
    expect(errors).toContain(
      "python -m deepspeed.checkpoint.ds_to_universal --input_folder global_step4 --output_folder global_step4_universal",
    );
  });
});

describe("training goes on from a checkpoint", () => {
  // One row in all: every step sees the same batch, wherever its data stands.
  const changes = { data: { train: "row.txt" }, train_micro_batch_size_per_gpu: 1 };
  const text = "The whale swims past the heron at 7 o'clock, quietly and alone.";

  /** Trains 6 steps, and writes them as a universal checkpoint: flat, as of ZeRO-3, in a model of its own. */
  async function trained(place: Workplace): Promise<string> {
    place.write("row.txt", text);
    await place.train([place.config({ ...changes, max_steps: 6 })]);
    renameSync(place.path("out"), place.path("first"));
    const checkpoint = readSafetensors(place.path("first/checkpoints/step-6/tensors.safetensors"));
    const states: Record<string, string> = {
      parameters: "fp32",
      first_moment: "exp_avg",
      second_moment: "exp_avg_sq",
    };
    for (const [key, tensor] of checkpoint) {
      const [kind, name] = key.split("/") as [string, string];
      writeState(place.path("universal"), name, states[kind]!, {
        ...tensor,
        shape: [tensor.bytes.length / 4],
      });
      writeState(place.path("universal"), name, "step", stored(Float32Array.of(6), []));
    }
    const { status, errors } = await place.run(["convert", "universal", "model", "--model", "first/model"]);
    expect({ status, errors }).toEqual({ status: 0, errors: "" });
    return "model";
  }

  test("with the bits of a run that never stopped, and is refused where it cannot", async () => {
    using place = new Workplace();
    const model = await trained(place);
    await place.train([place.config({ ...changes, max_steps: 12, output_dir: "whole" }, "whole.json")]);
    const whole = place.metrics("whole");
    expect(whole.every(({ step, epoch }) => epoch === step)).toBe(true);

    const { tokenizer: _, ...config } = JSON.parse(place.read(place.config({ ...changes, max_steps: 12 })));
    Object.assign(config, { model: { path: model }, checkpoint: { load_universal: model } });
    place.write("continued.json", JSON.stringify(config));
    const { output } = await place.train(["continued.json"]);
    expect(output).toContain("goes on from step 6 of model/checkpoint/step-6\n");
    const curve = place.metrics().map(({ step, loss }) => [step, loss]);
    expect(curve).toEqual(whole.slice(6).map(({ step, loss }) => [step, loss]));
    expect(place.hash("out/model/model.safetensors")).toBe(place.hash("whole/model/model.safetensors"));

    const twoRanks = await place.train([
      ...["continued.json", "--ranks", "2", "--set", "output_dir=ranks"],
      ...["--set", "zero_optimization.stage=3", "--set", "parallel.tensor=2"],
    ]);
    expect(twoRanks.status).toBe(0);
    place.metrics("ranks").forEach(({ step, loss }, index) => {
      expect(step).toBe(7 + index);
      expect(loss).toBeCloseTo(whole[6 + index]!.loss, 4);
    });

    const refused = async (...more: string[]): Promise<string> => {
      const outcome = await place.run(["train", "continued.json", "--set", "output_dir=refused", ...more]);
      expect(outcome.status).toBe(2);
      return outcome.errors;
    };
    expect(await refused("--set", "max_steps=6")).toBe(
      message("the run ends before the step that it would go on from", {
        where: "max_steps",
        expected: "more than the 6 steps of model/checkpoint/step-6: steps go on being counted from there",
        received: "6",
      }),
    );
    expect(await refused("--set", "optimizer.type=Lion")).toContain(
      "expected: AdamW or Adam\n  received: Lion\n",
    );
    expect(readdirSync(place.path("model/checkpoint"))).toEqual(["step-6"]);
    mkdirSync(place.path("copied"));
    renameSync(place.path("model/checkpoint"), place.path("copied/checkpoints"));
    const resumed = await place.run(["train", "continued.json", "--resume", "--set", "output_dir=copied"]);
    expect(resumed.status).toBe(2);
    expect(resumed.errors).toMatch(/^a converted checkpoint is not of a run to resume\n/);
    rmSync(place.path("model/checkpoint"), { recursive: true, force: true });
    const absent = await place.run(["train", "continued.json", "--set", "output_dir=absent"]);
    expect(absent.status).toBe(1);
    expect(absent.errors).toMatch(
      /^there is no converted checkpoint to continue from\n {2}where: {4}model\/checkpoint\n/,
    );
  }, 60_000);
});
