import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { ConfigError } from "../../base/errors.ts";
import { loadConfig } from "./load.ts";
import { InvalidConfigError } from "./problems.ts";

const folder = mkdtempSync(join(tmpdir(), "slipstream-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

const valid = `model:
  type: llama
  hidden_size: 256
  num_hidden_layers: 6
  num_attention_heads: 8
  num_key_value_heads: 4
  intermediate_size: 704
  max_position_embeddings: 512
tokenizer: { train: { vocabulary_size: 4096 } }
data:
  train: book.txt
  validation: 0.05
  sequence_length: 256
output_dir: runs/tiny
max_steps: 500
train_batch_size: 16
optimizer:
  type: adamw
  params: { lr: 1e-3, betas: [0.9, 0.95] }
scheduler:
  type: WarmupCosineLR
  params: { warmup_num_steps: 50, total_num_steps: 500 }
`;

let files = 0;
function file(text: string, extension = "yaml"): string {
  const path = join(folder, `config-${files++}.${extension}`);
  writeFileSync(path, text);
  return path;
}

/** The problems of a config, as `line:column path: summary` without the file. */
function problemsOf(text: string, overrides: readonly string[] = []): string[] {
  const path = file(text);
  try {
    loadConfig(path, overrides);
  } catch (error) {
    if (error instanceof InvalidConfigError) {
      return error.problems.map(({ where, summary }) => `${where.replace(`${path}:`, "")} ${summary}`);
    }
    throw error;
  }
  return [];
}

function messageOf(text: string, overrides: readonly string[] = []): string {
  try {
    loadConfig(file(text), overrides);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as ConfigError).message;
  }
  return "";
}

describe("a valid config", () => {
  it("is read from YAML with every default filled in", () => {
    const config = loadConfig(file(valid));
    expect(config.optimizer).toEqual({
      type: "AdamW",
      params: {
        lr: 0.001,
        betas: [0.9, 0.95],
        eps: 1e-8,
        weight_decay: 0,
        no_decay: ["*.bias", "*norm*", "*ln_*"],
      },
    });
    expect(config.fp16).toMatchObject({ enabled: false, loss_scale_window: 1000, hysteresis: 2 });
    expect(config.model).toMatchObject({ type: "llama", rope_theta: 10_000 });
    expect(config.activation_checkpointing).toEqual({
      mode: "none",
      mlp_tiles: 1,
      partition_activations: false,
      cpu_checkpointing: false,
    });
    expect(config.zero_optimization).toMatchObject({
      stage: 0,
      reduce_bucket_size: "auto",
      stage3_max_live_parameters: 1_000_000_000,
      offload_optimizer: { device: "none", ratio: 1 },
    });
    expect(config.parallel).toEqual({ auto: false });
    expect(config.comm).toEqual({ timeout_seconds: 300, links: {} });
  });

  it("is read from JSON, with tabs and exponents, to the same result", () => {
    const json = JSON.stringify(
      {
        model: { path: "models/tiny" },
        data: { train: ["a.txt", "b.txt"], sequence_length: 128 },
        output_dir: "runs/fine",
        train_micro_batch_size_per_gpu: 2,
        optimizer: { type: "Lion", params: { lr: 0.00003 } },
        activation_checkpointing: { mode: "budget", memory_budget: "4GiB" },
      },
      undefined,
      "\t",
    ).replace("0.00003", "3e-5");
    const config = loadConfig(file(json, "json"));
    expect(config.optimizer.params.lr).toBe(3e-5);
    expect(config.model.type).toBeUndefined();
    expect(config.activation_checkpointing.memory_budget).toBe(4_294_967_296);
  });

  it("takes overrides: nested, into lists, into sections that are not there, and removals", () => {
    const config = loadConfig(file(valid), [
      "optimizer.params.lr=3e-4",
      "optimizer.params.betas[1]=0.99",
      'samples.prompts=["Call me", "x=y"]',
      "data.validation=null",
      "bf16.enabled=true",
      "output_dir=runs/a=b",
    ]);
    expect(config.optimizer.params).toMatchObject({ lr: 3e-4, betas: [0.9, 0.99] });
    expect(config.samples?.prompts).toEqual(["Call me", "x=y"]);
    expect(config.data.validation).toBeUndefined();
    expect(config.bf16.enabled).toBe(true);
    expect(config.output_dir).toBe("runs/a=b");
  });
});

describe("unknown keys", () => {
  it("are refused at every level, with their place and what was meant", () => {
    const text = valid
      .replace("max_steps", "max_step")
      .replace("warmup_num_steps", "warmup_steps")
      .replace("{ lr:", "{ learning_rate: 1, lr:");
    expect(problemsOf(text)).toEqual([
      "15:1 unknown key max_step",
      "19:13 unknown key optimizer.params.learning_rate",
      "22:13 unknown key scheduler.params.warmup_steps",
    ]);
    const message = messageOf(text);
    expect(message).toMatch(/has 3 problems/);
    expect(message).toContain("did you mean max_steps?");
    expect(message).toContain("did you mean optimizer.params.lr?");
    expect(message).toContain("did you mean scheduler.params.warmup_num_steps?");
  });

  it("are told their place where they belong to another section, type or family", () => {
    expect(messageOf(valid, ["optimizer.lr=1"])).toContain("did you mean optimizer.params.lr?");
    expect(messageOf(valid, ["optimizer.params.momentum=0.9"])).toContain("only SGD has it");
    expect(messageOf(valid, ["model.path=x"])).toContain("model.type to fine-tune this folder");
    expect(messageOf(valid, ["model.type=gpt2"])).toContain("gpt2 calls it n_embd");
    expect(messageOf(valid, ["model.type=null"])).toContain("say which family it is with model.type");
  });

  it("list what is known where nothing is near", () => {
    expect(messageOf(valid, ["evaluation.zzzzzzzzzz=1"])).toContain(
      "expected: one of every_steps, max_batches",
    );
    expect(messageOf(valid, ["parallel.zzzzz=2"])).toContain(
      "expected: one of auto, data, tensor, pipeline, sequence, expert",
    );
  });

  it("of DeepSpeed that are not built yet are refused as such", () => {
    const text = `${valid}zero_optimization:\n  contiguous_gradients: false\n  round_robin_gradients: true\nwandb: { enabled: true }\n`;
    expect(problemsOf(text)).toEqual([
      "24:3 zero_optimization.contiguous_gradients: false is not available in this version",
      "25:3 zero_optimization.round_robin_gradients is not available in this version",
      "26:1 wandb is not available in this version",
    ]);
    expect(problemsOf(`${valid}zero_optimization: { stage: 0 }\n`)).toEqual([]);
    expect(messageOf(valid, ["optimizer.type=Lamb"])).toContain(
      "optimizer.type: Lamb is not available in this version",
    );
    expect(messageOf(valid, ["zero_optimization.stage=4"])).toMatch(
      /expected: 0 \| 1 \| 2 \| 3\n.*received: 4/,
    );
  });
});

describe("wrong values", () => {
  it.each([
    ["train_batch_size='16'", "expected: integer >= 1", 'received: the text "16"', "write 16 without quotes"],
    ["train_batch_size=0", "expected: integer >= 1", "received: 0"],
    ["train_batch_size=1.5", "expected: integer >= 1", "received: 1.5"],
    ["optimizer.params.lr=auto", "expected: number >= 0", '"auto" is filled in by other trainers'],
    ["optimizer.params.lr=.nan", "expected: number >= 0", "received: NaN"],
    [
      "optimizer.params.betas=[0.9]",
      "expected: [number >= 0 and < 1, number >= 0 and < 1]",
      "received: the list [0.9]",
    ],
    ["bf16.enabled=yes", "expected: boolean", "write true or false"],
    ["data.packing=bestfit", "expected: rows | best_fit", "did you mean best_fit?"],
    ["scheduler.type=WarmupCosinLR", "WarmupCosineLR | OneCycle", "did you mean WarmupCosineLR?"],
    ["model.type=lama", "expected: llama | mistral", "did you mean llama?"],
    ["data.validation=1.5", "fraction between 0 and 1", "received: 1.5"],
    ["activation_checkpointing.memory_budget=4GB2", "expected: bytes, such as 512MiB", '"4GB2"'],
    ["optimizer=3", "optimizer has a value", "expected: section", "received: 3"],
    ["samples.every_steps=5", "samples.prompts is missing", "list of string, at least 1"],
  ])("%s", (override, ...parts) => {
    const message = messageOf(valid, [override]);
    for (const part of parts) expect(message).toContain(part);
    expect(message).toContain(`--set ${override}`);
  });

  it("of an empty key asks for a value", () => {
    const text = valid.replace("runs/tiny", "");
    expect(messageOf(text)).toMatch(/14:1\n.*expected: string\n.*received: nothing/);
  });

  it("that are missing are placed at their section", () => {
    expect(problemsOf(valid.replace("  sequence_length: 256\n", ""))).toEqual([
      "10:1 data.sequence_length is missing",
    ]);
    expect(messageOf("{}")).toContain("model is missing");
  });
});

describe("files that cannot be read", () => {
  it("say so", () => {
    expect(() => loadConfig(join(folder, "absent.yaml"))).toThrow(/absent\.yaml[\s\S]*no such file/);
    expect(() => loadConfig(folder)).toThrow(/received: a folder/);
    expect(messageOf("")).toContain("received: an empty file");
    expect(messageOf("- a\n- b\n")).toContain("received: a list");
    expect(messageOf("just text")).toContain('received: the string "just text"');
  });

  it("name the key that is given twice, and every syntax error", () => {
    expect(messageOf("seed: 1\noutput_dir: a\nseed: 2\n")).toMatch(/:3:1 {2}the key seed is given twice/);
    expect(messageOf('{ "a": 1,\n "b": [1, 2\n')).toMatch(/not valid YAML or JSON[\s\S]*:\d+:\d+ /);
    expect(messageOf("a: 1\na: 2\nb: 1\nb: 2\n")).toMatch(/:2:1 {2}the key a[\s\S]*:4:1 {2}the key b/);
  });
});

describe("overrides that cannot be read", () => {
  it.each([
    ["seed", /no key or no value[\s\S]*--set path\.to\.key=value/],
    ["=3", /no key or no value/],
    ["__proto__.x=1", /no key or no value/],
    ["seed.x=1", /seed is a value/],
    ["optimizer.params.betas.first=1", /no place in a list of 2/],
    ["data.train=[a", /not YAML/],
  ])("%s", (override, message) => {
    const text = override.startsWith("seed.") ? `${valid}seed: 1\n` : valid;
    expect(messageOf(text, [override])).toMatch(message);
  });
});

describe("contradictions", () => {
  it.each([
    [["bf16.enabled=true", "fp16.enabled=true"], "bf16 and fp16 are both enabled"],
    [
      ["model.hidden_size=250"],
      "model.hidden_size does not divide by model.num_attention_heads",
      "250 / 8 = 31.25",
    ],
    [["model.hidden_size=248"], "heads of an even width", "heads of 31"],
    [
      ["model.num_key_value_heads=3"],
      "serve as many query heads",
      "a divisor of model.num_attention_heads, 8",
    ],
    [["data.sequence_length=1024"], "longer than the model's positions", "max_position_embeddings, 512"],
    [
      ["scheduler.params.warmup_num_steps=501"],
      "warmup is longer",
      "at most total_num_steps, 500",
      "received: 501",
    ],
    [["max_steps=501"], "longer than its cosine", "at least max_steps, 501"],
    [["tokenizer=null"], "a new model needs a tokenizer"],
    [["tokenizer.path=x"], "either loaded or trained", "received: both"],
    [["model.vocab_size=4095"], "more tokens than the model", "at most model.vocab_size, 4095"],
    [["data.prompt_field=q"], "data.prompt_field needs data.completion_field"],
    [["data.validation=null", "evaluation.every_steps=5"], "nothing to evaluate on"],
    [["train_batch_size=null"], "does not say how many rows"],
    [
      ["gradient_accumulation_steps=3"],
      "do not multiply out",
      "16 = 3 accumulation x ranks, and 16 / 3 = 5.3333",
    ],
    [["activation_checkpointing.mode=every_k"], "every_k needs activation_checkpointing.every"],
    [["activation_checkpointing.every=2"], "activation_checkpointing.every counts only with mode: every_k"],
    [["optimizer={type: SGD, params: {nesterov: true}}"], "nesterov needs momentum"],
    [
      ["scheduler={type: WarmupLR, params: {warmup_min_lr: 1}}"],
      "warmup_min_lr is above warmup_max_lr",
      "1 > 0.001",
    ],
    [
      ["optimizer={type: Adagrad}", "scheduler={type: OneCycle, params: {cycle_min_lr: 0, cycle_max_lr: 1}}"],
      "Adagrad has no momentum to cycle",
    ],
  ])("%j", (overrides, ...parts) => {
    const message = messageOf(valid, overrides);
    for (const part of parts) expect(message).toContain(part);
  });

  it("are listed beside wrong keys and values, but not about keys that are in question already", () => {
    const text = `${valid.replace("hidden_size: 256", "hidden_size: 250")}seeed: 3\n`;
    expect(problemsOf(text)).toEqual([
      "5:3 model.hidden_size does not divide by model.num_attention_heads",
      "23:1 unknown key seeed",
    ]);
    const misspelt = valid.replace("train_batch_size", "train_batchsize");
    expect(problemsOf(misspelt)).toEqual(["16:1 unknown key train_batchsize"]);
  });
});
