import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { goldenFolder } from "../../test/support/serving.ts";
import { createNativeBackend } from "../backends.ts";
import { loadEngine } from "../serve.ts";
import { loadForServing } from "./load.ts";

const backend = createNativeBackend();
let folder: string;

const write = (name: string, value: unknown): void => {
  writeFileSync(join(folder, name), typeof value === "string" ? value : JSON.stringify(value));
};

/** A tokenizer of single letters, small enough for the model. */
const tokenizer = {
  version: "1.0",
  added_tokens: [
    { id: 0, content: "<s>", special: true },
    { id: 1, content: "</s>", special: true },
  ].map((token) => ({ single_word: false, lstrip: false, rstrip: false, normalized: false, ...token })),
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: { type: "Fuse" },
  model: { type: "BPE", vocab: { "<s>": 0, "</s>": 1, a: 2, b: 3, c: 4 }, merges: [], unk_token: null },
};

beforeEach(() => {
  folder = join(mkdtempSync(join(tmpdir(), "slipstream-")), "my-model");
  cpSync(goldenFolder("llama"), folder, { recursive: true });
  write("tokenizer.json", tokenizer);
});

afterEach(() => {
  rmSync(join(folder, ".."), { recursive: true });
});

test("a folder without extras has its name, its end tokens and no chat template", async () => {
  const parts = await loadForServing(backend, folder);
  expect(parts.modelName).toBe("my-model");
  expect(parts.chatTemplate).toBeUndefined();
  expect(parts.endTokens).toEqual([2]);
  expect(parts.model.facts.vocabularySize).toBe(101);
});

test("end tokens come from every file, special tokens and the template from the tokenizer's", async () => {
  write("generation_config.json", { eos_token_id: [2, 4] });
  write("tokenizer_config.json", {
    bos_token: { content: "<s>" },
    eos_token: "</s>",
    chat_template: [
      { name: "tools", template: "tools" },
      { name: "default", template: "{{ messages }}" },
    ],
  });
  const parts = await loadForServing(backend, folder, { modelName: "other", precision: "bf16" });
  expect(parts).toMatchObject({
    modelName: "other",
    chatTemplate: "{{ messages }}",
    specialTokens: { bos: "<s>", eos: "</s>" },
    endTokens: [2, 4, 1],
  });
  expect(parts.model.parts.dtype).toBe("bf16");
  write("chat_template.jinja", "from the file");
  expect((await loadForServing(backend, folder)).chatTemplate).toBe("from the file");
});

test("files that cannot be read are named", async () => {
  write("generation_config.json", "[1]");
  await expect(loadForServing(backend, folder)).rejects.toThrow(
    /not hold an object[\s\S]*generation_config\.json/,
  );
  write("generation_config.json", "{");
  await expect(loadForServing(backend, folder)).rejects.toThrow(/is not JSON[\s\S]*generation_config\.json/);
});

test("the package's entry loads a folder onto a backend and answers", async () => {
  for (const backendName of ["native", "reference"] as const) {
    const engine = await loadEngine(folder, {
      backend: backendName,
      maximumContext: 16,
      maximumSequences: 2,
      tokenBudget: 8,
    });
    let text = "";
    const biases = new Map([[3, 1e9]]);
    for await (const piece of engine.generate({ prompt: "abc", maxTokens: 3, logitBias: biases })) {
      text += piece.text;
    }
    expect(text).toBe("bbb");
    await engine.dispose();
  }
});
