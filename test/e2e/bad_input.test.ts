import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type Config,
  floats,
  message,
  readSafetensors,
  type StoredTensor,
  Workplace,
  writeSafetensors,
} from "./support.ts";

/** Where every test of this file works, and a trained model to break copies of. */
const place = new Workplace();
const weightsFile = (model: string): string => place.path(model, "model.safetensors");

beforeAll(async () => {
  await place.train([place.config({ max_steps: 2, output_dir: "base" })]);
});
afterAll(() => {
  place[Symbol.dispose]();
});

/** Changes that make the tiny config fine-tune a folder. */
function fineTuned(model: string): Config {
  return { model: { path: model, type: undefined }, tokenizer: undefined };
}

function copyModel(from: string, to: string): void {
  cpSync(place.path(from), place.path(to), { recursive: true });
}

let runs = 0;
/** Trains with changes to the tiny config; the run is to fail, with nothing but the message of its error. */
async function failure(
  changes: Config,
  sets: readonly string[] = [],
): Promise<{ status: number | null; errors: string }> {
  runs++;
  const config = place.config({ output_dir: `run-${runs}`, ...changes }, `run-${runs}.json`);
  const parameters = sets.flatMap((set) => ["--set", set]);
  const { status, errors } = await place.run(["train", config, ...parameters]);
  expect(errors).not.toMatch(/^ {4}at |node:|\.ts:/m);
  return { status, errors };
}

const wrong = (...parts: Parameters<typeof message>): { status: number; errors: string } => ({
  status: 2,
  errors: message(...parts),
});
const failed = (...parts: Parameters<typeof message>): { status: number; errors: string } => ({
  status: 1,
  errors: message(...parts),
});

describe("configs", () => {
  test("a misspelt key is named with its line and the nearest key, at every level", async () => {
    place.write("typo.yaml", "optimizer:\n  type: AdamW\n  params: { weight_decy: 0.1 }\noutput_dri: out\n");
    const { status, errors, output } = await place.run(["train", "typo.yaml"]);
    expect({ status, output }).toEqual({ status: 2, output: "" });
    expect(errors).toContain(
      "- typo.yaml:3:13  unknown key optimizer.params.weight_decy\n    to do:    did you mean optimizer.params.weight_decay?\n",
    );
    expect(errors).toContain(
      "- typo.yaml:4:1  unknown key output_dri\n    to do:    did you mean output_dir?\n",
    );
    expect(await failure({}, ["data.sequence_lenght=3"])).toEqual(
      wrong("unknown key data.sequence_lenght", {
        where: "--set data.sequence_lenght=3",
        hint: "did you mean data.sequence_length?",
      }),
    );
  });

  test("batch sizes that do not multiply out: the equation with its numbers", async () => {
    expect(await failure({ train_batch_size: 7, gradient_accumulation_steps: 2 })).toEqual(
      wrong("the batch sizes do not multiply out for any number of ranks", {
        where: `run-${runs}.json:30:2`,
        expected: "train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks",
        received: "7 = 2 micro x 2 accumulation x ranks, and 7 / 4 = 1.75",
      }),
    );
  });

  test("with every size given, the product is printed with what would be right", async () => {
    expect(await failure({ train_batch_size: 8, gradient_accumulation_steps: 2 })).toEqual(
      wrong("the batch sizes do not multiply out", {
        where: "train_batch_size",
        expected: "train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks",
        received: "8 != 2 micro x 2 accumulation x 1 rank = 4",
        hint: "set train_batch_size to 4, or leave one of the three out",
      }),
    );
  });

  test("rows longer than the model's positions", async () => {
    expect(await failure({}, ["data.sequence_length=65"])).toEqual(
      wrong("the rows are longer than the model's positions", {
        where: "--set data.sequence_length=65",
        expected: "at most model.max_position_embeddings, 64",
        received: "65",
      }),
    );
    expect(await failure({ ...fineTuned("base/model"), data: { sequence_length: 65 } })).toEqual(
      wrong("rows are longer than the model's positions", {
        where: "data.sequence_length",
        expected: "at most 64 (max_position_embeddings)",
        received: "65",
      }),
    );
  });

  test("numbers that are too small, with their place", async () => {
    expect(await failure({}, ["data.sequence_length=1"])).toEqual(
      wrong("data.sequence_length has a value that cannot be used", {
        where: "--set data.sequence_length=1",
        expected: "integer >= 2",
        received: "1",
      }),
    );
    expect(await failure({}, ["tokenizer.train.vocabulary_size=257"])).toEqual(
      wrong("tokenizer.train.vocabulary_size has a value that cannot be used", {
        where: "--set tokenizer.train.vocabulary_size=257",
        expected: "integer >= 258",
        received: "257",
      }),
    );
  });

  test("prompts of samples that could not be continued are refused before the first step", async () => {
    expect(await failure({ samples: { prompts: ["fine", "whale ".repeat(40)] } })).toEqual({
      status: 2,
      errors: expect.stringMatching(
        /^a prompt leaves the model no position to write on\n {2}where: {4}samples\.prompts\[1\]\n {2}expected: fewer than 64 tokens \(the model's positions\)\n {2}received: \d+ tokens\n$/,
      ) as unknown as string,
    });
  });

  test("frozen parameters that leave nothing to train, or are none", async () => {
    expect(await failure({ frozen_parameters: ["*"] })).toEqual(
      wrong("every parameter of the model is frozen", {
        where: "frozen_parameters",
        hint: "leave at least one parameter out of the patterns",
      }),
    );
    const { status, errors } = await failure({ frozen_parameters: ["model.layer.0.*"] });
    expect(status).toBe(2);
    expect(errors).toContain("  received: model.layer.0.*\n");
  });

  test("a model that no machine can hold", async () => {
    const width = { hidden_size: 10_240, num_attention_heads: 80, intermediate_size: 28_672 };
    const model = { type: "llama", ...width, num_hidden_layers: 80, max_position_embeddings: 64 };
    const { status, errors } = await failure({ model });
    expect(status).toBe(1);
    expect(errors).toMatch(
      new RegExp(
        [
          "^the run does not fit in memory",
          "  expected: at most [\\d.]+ [GT]iB, which this machine has",
          // 80 x (4 x 10240^2 + 3 x 10240 x 28672 + 2 x 10240) + 2 x 280 x 10240 + 10240, each 4 times 4 bytes.
          "  received: 1\\.5 TiB of weights, gradients and optimizer states of 104,026,122,240 parameters",
          "  to do:    make the model smaller, or train on a machine with more memory\n$",
        ].join("\n"),
      ),
    );
    const batch = await failure({ train_micro_batch_size_per_gpu: 10_000_000 });
    expect(batch.status).toBe(1);
    expect(batch.errors).toMatch(/^(the run does not fit in memory|the system does not give as much memory)/);
    expect(batch.errors).toMatch(/ {2}to do: .*batch/);
  });

  test("environment variables and output_dir that cannot be used", async () => {
    const config = place.config({ output_dir: "text.txt" });
    const file = await place.run(["train", config]);
    expect(file.status).toBe(1);
    expect(file.errors).toMatch(/^a file or folder could not be written\n {2}where: {4}text\.txt/);
    const threads = await place.run(["train", config], { SLIPSTREAM_THREADS: "0" });
    expect(threads.status).toBe(2);
    expect(threads.errors).toContain("expected: an integer from 1 to 256");
    const isa = await place.run(["train", config], { SLIPSTREAM_ISA: "mmx" });
    expect(isa.status).toBe(2);
    expect(isa.errors).toContain('this machine cannot run kernels for "mmx"');
  });
});

describe("models", () => {
  /** A copy of the trained model whose tensors `change` has changed. */
  function broken(name: string, change: (tensors: Map<string, StoredTensor>) => void): string {
    copyModel("base/model", name);
    const tensors = readSafetensors(weightsFile(name));
    change(tensors);
    writeSafetensors(weightsFile(name), tensors);
    return name;
  }

  test("weights that are missing, truncated or no safetensors", async () => {
    copyModel("base/model", "cut");
    rmSync(weightsFile("cut"));
    expect(await failure(fineTuned("cut"))).toEqual(
      failed("a model folder holds no weights in safetensors format", {
        where: "cut",
        expected: "model.safetensors or model.safetensors.index.json",
        received: "config.json, tokenizer.json, tokenizer_config.json",
        hint: "check that this is a model's folder and that its download finished",
      }),
    );
    copyModel("base/model", "cut");
    truncateSync(weightsFile("cut"), 100_000);
    const truncated = await failure(fineTuned("cut"));
    expect(truncated.status).toBe(1);
    expect(truncated.errors).toMatch(
      /^a tensor lies beyond the end of its safetensors file\n {2}where: {4}tensor "model\.norm\.weight" of cut\/model\.safetensors\n/,
    );
    truncateSync(weightsFile("cut"), 100);
    const header = await failure(fineTuned("cut"));
    expect(header.status).toBe(1);
    expect(header.errors).toMatch(
      /^a safetensors header is longer than its file\n {2}where: {4}cut\/model\.safetensors\n {2}expected: a header of at most 92 bytes, in a file of 100\n/,
    );
    writeFileSync(weightsFile("cut"), "PK\x03\x04 this is a zip");
    expect((await failure(fineTuned("cut"))).errors).toMatch(
      /^a safetensors header is longer than its file\n/,
    );
  });

  test("overlapping tensors", async () => {
    const name = broken("overlap", () => undefined);
    const file = readFileSync(weightsFile(name));
    const length = Number(file.readBigUInt64LE(0));
    const header = file.toString("utf8", 8, 8 + length);
    const moved = header.replace(
      /"data_offsets":\[(\d+),(\d+)\](?=\}\}$)/,
      (_all, from: string, to: string) =>
        `"data_offsets":[${String(Number(from) - 4).padStart(from.length)},${String(Number(to) - 4).padStart(to.length)}]`,
    );
    expect(moved).not.toBe(header);
    file.write(moved, 8);
    writeFileSync(weightsFile(name), file);
    const { status, errors } = await failure(fineTuned(name));
    expect(status).toBe(1);
    expect(errors).toMatch(/overlap/);
    expect(errors).toContain("of overlap/model.safetensors\n");
  });

  test("a missing and an extra tensor are both named", async () => {
    const name = broken("renamed", (tensors) => {
      const moved = tensors.get("model.layers.1.mlp.up_proj.weight")!;
      tensors.delete("model.layers.1.mlp.up_proj.weight");
      tensors.set("model.layers.1.mlp.upward_proj.weight", moved);
    });
    const fits = message(
      [
        "the weights do not fit the model",
        "    missing: model.layers.1.mlp.up_proj.weight [48, 32]; the file holds model.layers.1.mlp.upward_proj.weight",
        "    extra: model.layers.1.mlp.upward_proj.weight",
      ].join("\n"),
      {
        where: "renamed/model.safetensors",
        expected: "the 21 tensors of the model",
        received: "21 tensors: 1 missing, 0 of wrong shape, 1 extra",
        hint: "check that config.json belongs to these weights",
      },
    );
    expect(await failure(fineTuned(name))).toEqual({ status: 1, errors: fits });
    expect(await place.run(["generate", name, "--prompt", "x"])).toEqual({
      status: 1,
      output: "",
      errors: fits,
    });
  });

  test("a tensor of the wrong shape and one of a dtype that is not read", async () => {
    const shape = await failure(
      fineTuned(
        broken("misshapen", (tensors) => {
          tensors.get("model.norm.weight")!.shape = [4, 8];
        }),
      ),
    );
    expect(shape.status).toBe(1);
    expect(shape.errors).toContain("    wrong shape: model.norm.weight, expected [32], received [4, 8]\n");
    const dtype = await failure(
      fineTuned(
        broken("complex", (tensors) => {
          const norm = tensors.get("model.norm.weight")!;
          norm.dtype = "C64";
          norm.bytes = new Uint8Array(32 * 8);
        }),
      ),
    );
    expect(dtype).toEqual(
      failed("a tensor has a dtype that Slipstream does not read", {
        where: 'tensor "model.norm.weight" of complex/model.safetensors',
        expected: "F32, BF16, F16, F64, I32, I64, U8, I8 or BOOL",
        received: "C64",
        hint: "convert the tensor and save the file again",
      }),
    );
  });

  test("a tokenizer whose vocabulary exceeds the model's", async () => {
    const name = broken("narrow", (tensors) => {
      for (const tensor of ["model.embed_tokens.weight", "lm_head.weight"]) {
        const { dtype, bytes } = tensors.get(tensor)!;
        tensors.set(tensor, { dtype, shape: [270, 32], bytes: bytes.slice(0, 270 * 32 * 4) });
      }
    });
    const config = JSON.parse(place.read(name, "config.json")) as Config;
    place.write(`${name}/config.json`, JSON.stringify({ ...config, vocab_size: 270 }));
    const exceeds = (errors: string): void => {
      expect(errors).toMatch(
        /^the tokenizer's vocabulary exceeds the model's\n {2}expected: token ids from 0 to 269 \(the model's vocabulary is 270\)\n {2}received: ids up to 279 \(".*"\)\n {2}to do: {4}use the model's own tokenizer, or give the model a vocabulary of at least 280\n$/,
      );
    };
    const training = await failure(fineTuned(name));
    expect(training.status).toBe(1);
    exceeds(training.errors);
    exceeds((await place.run(["generate", name, "--prompt", "x"])).errors);
    exceeds((await place.run(["eval", name, "--text", "text.txt"])).errors);
  });

  test("a weight that is NaN is named, in its layer", async () => {
    const name = broken("poisoned", (tensors) => {
      floats(tensors.get("model.layers.1.mlp.down_proj.weight")!)[7] = Number.NaN;
    });
    expect(await failure(fineTuned(name))).toEqual(
      failed("a parameter holds values that are not finite (NaN or infinity)", {
        where: "model.layers.1.mlp.down_proj.weight, after 0 updates",
        hint: "lower the learning rate or clip gradients; go back to an earlier checkpoint, or to a model file that is whole",
      }),
    );
  });

  test("a loss that turns NaN names the op and its layer, and the checkpoints before stay", async () => {
    const config = place.config({
      output_dir: "exploding",
      optimizer: { type: "AdamW", params: { lr: 1e6 } },
      checkpoint: { every_steps: 1 },
    });
    const { status, errors } = await place.run(["train", config]);
    expect(status).toBe(1);
    expect(errors).toMatch(
      /^a result that is not finite \(NaN or infinity\) first appeared in \w+\n {2}where: {4}model\.layers\.\d\.\w+ \(output \d of \w+, step \d+ of program train\)\n {2}to do: {4}lower the learning rate, clip gradients, or check the data of this batch\n$/,
    );
    const steps = place.metrics("exploding").map(({ step }) => step);
    expect(place.list("exploding", "checkpoints").length).toBeGreaterThan(0);
    const last = `step-${steps.at(-1)}`;
    expect(place.list("exploding", "checkpoints")).toContain(last);
    for (const [name, tensor] of readSafetensors(
      place.path("exploding", "checkpoints", last, "tensors.safetensors"),
    )) {
      expect(floats(tensor).every(Number.isFinite), name).toBe(true);
    }
  });
});

test("weights that an update made infinite are not saved over whole ones", async () => {
  const settings = { output_dir: "infinite", checkpoint: { every_steps: 1, keep_last: 1 } };
  const schedule = {
    type: "OneCycle",
    params: { cycle_min_lr: 0, cycle_max_lr: 3e38, cycle_first_step_size: 2 },
  };
  // The first update has the learning rate 0, the second one that no weight survives.
  const { status, errors } = await failure({ ...settings, scheduler: schedule });
  expect(status).toBe(1);
  expect(errors).toMatch(
    /^a parameter holds values that are not finite \(NaN or infinity\)\n {2}where: {4}\S+\.weight, after 2 updates\n/,
  );
  expect(place.list("infinite", "checkpoints")).toEqual(["step-1"]);
});

describe("data and prompts", () => {
  test("empty, missing and too little data", async () => {
    place.write("empty.txt", "");
    expect(await failure({ data: { train: "empty.txt" } })).toEqual(
      failed("a data file has nothing in it to learn from", {
        where: "empty.txt",
        expected: "at least one document with text",
        hint: "remove it from the config, or check how it was made",
      }),
    );
    const missing = await failure({ data: { train: "nowhere.txt" } });
    expect(missing.status).toBe(1);
    expect(missing.errors).toMatch(/^a data file is missing\n {2}where: {4}nowhere\.txt\n/);
    place.write("short.txt", "A whale.");
    const short = await failure({ ...fineTuned("base/model"), data: { train: "short.txt" } });
    expect(short.status).toBe(1);
    expect(short.errors).toMatch(
      /^the data does not fill a single sequence\n {2}where: {4}training data\n {2}expected: at least 32 tokens \(sequence_length\)\n/,
    );
  });

  test("documents of one token, of which nothing can be learnt", async () => {
    place.write(
      "ones.jsonl",
      Array.from({ length: 64 }, (_, id) => JSON.stringify({ text: [id] })).join("\n"),
    );
    expect(await failure({ ...fineTuned("base/model"), data: { train: "ones.jsonl" } })).toEqual(
      failed("the data holds nothing to learn", {
        where: "training data",
        expected: "documents of at least two tokens, not all of them prompt",
        received: "64 documents with 64 tokens, none of which follows another and is to be learnt",
        hint: "check how the data was made, and which field is the prompt",
      }),
    );
  });

  test("ids and prompts that the model cannot take", async () => {
    const run = async (...parameters: string[]): Promise<{ status: number | null; errors: string }> => {
      const { status, output, errors } = await place.run(parameters);
      expect(output).toBe("");
      return { status, errors };
    };
    const outside = (id: string, index: number, where: string) =>
      failed("a token id is outside the vocabulary", {
        where,
        expected: "integers from 0 to 279",
        received: `${id} (token ${index})`,
        hint: "the ids come from another tokenizer, or the data is damaged",
      });
    expect(await run("generate", "base/model", "--ids", "1,999999")).toEqual(outside("999999", 1, "--ids"));
    place.write("ids.json", "[[1, 2], [3, 280]]");
    expect(await run("eval", "base/model", "--ids-file", "ids.json")).toEqual(outside("280", 1, "ids.json"));
    const ids = Array.from({ length: 65 }, () => 5).join();
    expect(await run("generate", "base/model", "--ids", ids, "--max-tokens", "1")).toEqual(
      failed("the prompt is longer than the model's positions", {
        where: "--ids",
        expected: "at most 64 tokens (max_position_embeddings)",
        received: "65 tokens",
        hint: "shorten the prompt",
      }),
    );
    expect((await run("generate", "base/model", "--prompt", "whale ".repeat(60))).errors).toMatch(
      /^the prompt is longer than the model's positions\n {2}where: {4}--prompt\n/,
    );
    expect(await run("eval", "base/model", "--text", "nowhere.txt")).toEqual(
      failed("a file does not exist", { where: "nowhere.txt", hint: "check the path" }),
    );
  });

  test("a prompt that fills the context: the model writes up to its last position and stops", async () => {
    const ids = Array.from({ length: 60 }, (_, index) => 20 + index).join();
    const { status, output } = await place.run([
      ...[
        "generate",
        "base/model",
        "--ids",
        ids,
        "--max-tokens",
        "50",
        "--temperature",
        "2",
        "--seed",
        "4",
        "--json",
      ],
    ]);
    expect(status).toBe(0);
    const { ids: written } = JSON.parse(output) as { ids: number[] };
    // 4 positions are left, and the last token written takes none.
    expect(written.length).toBe(5);
  });
});
