import { describe, expect, it } from "vitest";
import { resolveBatch } from "./batch.ts";
import { describeConfig } from "./describe.ts";
import { matchesAny } from "./patterns.ts";
import { configReferenceMarkdown } from "./reference.ts";
import { defaultNoDecay } from "./schema/optimizer.ts";

function sizes(batch?: number, micro?: number, steps?: number) {
  return {
    train_batch_size: batch,
    train_micro_batch_size_per_gpu: micro,
    gradient_accumulation_steps: steps,
  };
}

describe("resolveBatch", () => {
  it.each([
    // batch, micro, accumulation, ranks -> what DeepSpeed's rules give
    [32, 4, 2, 4, [32, 4, 2]],
    [32, 4, undefined, 2, [32, 4, 4]],
    [32, undefined, 2, 4, [32, 4, 2]],
    [undefined, 4, 2, 3, [24, 4, 2]],
    [32, undefined, undefined, 2, [32, 16, 1]],
    [undefined, 4, undefined, 2, [8, 4, 1]],
  ])("%s = %s x %s x %s ranks", (batch, micro, steps, ranks, expected) => {
    const resolved = resolveBatch(sizes(batch, micro, steps), ranks);
    expect([resolved.trainBatchSize, resolved.microBatchSize, resolved.accumulationSteps]).toEqual(expected);
  });

  it("prints the equation with its numbers where it does not hold", () => {
    expect(() => resolveBatch(sizes(32, 4, 3), 2)).toThrow(
      /32 != 4 micro x 3 accumulation x 2 ranks = 24[\s\S]*set train_batch_size to 24/,
    );
    expect(() => resolveBatch(sizes(30, 4), 1)).toThrow(
      /30 = 4 micro x \? accumulation x 1 rank, and 30 does not divide by 4[\s\S]*multiple of 4, such as 32/,
    );
    expect(() => resolveBatch(sizes(7), 2)).toThrow(/7 = \? micro x 1 accumulation x 2 ranks/);
    expect(() => resolveBatch(sizes(undefined, undefined, 4))).toThrow(
      /how many rows[\s\S]*set train_batch_size/,
    );
  });
});

describe("matchesAny", () => {
  it("tells norms and biases from what decays, in every family's names", () => {
    const decays = [
      "model.embed_tokens.weight",
      "model.layers.0.mlp.up_proj.weight",
      "h.0.attn.c_attn.weight",
      "wte.weight",
    ];
    const doesNot = [
      "model.norm.weight",
      "model.layers.3.input_layernorm.weight",
      "model.layers.3.self_attn.q_norm.weight",
      "model.layers.3.self_attn.q_proj.bias",
      "h.0.ln_1.weight",
      "transformer.ln_f.bias",
    ];
    expect(decays.filter((name) => matchesAny(name, defaultNoDecay))).toEqual([]);
    expect(doesNot.filter((name) => !matchesAny(name, defaultNoDecay))).toEqual([]);
  });

  it("matches whole names and takes dots for dots", () => {
    expect(matchesAny("lm_head.weight", ["lm_head"])).toBe(false);
    expect(matchesAny("lm_headxweight", ["lm_head.weight"])).toBe(false);
    expect(matchesAny("model.layers.1.mlp.up_proj.weight", ["model.layers.1.*"])).toBe(true);
    expect(matchesAny("model.layers.11.mlp.up_proj.weight", ["model.layers.1.*"])).toBe(false);
  });
});

describe("describeConfig", () => {
  const keys = describeConfig();
  const find = (path: string) => keys.filter((key) => key.path === path);

  it("describes every key with a sentence", () => {
    expect(keys.length).toBeGreaterThan(120);
    for (const key of keys) expect(key.description, key.path).toMatch(/[.?]$/);
  });

  it("knows types, defaults and where a key applies", () => {
    expect(find("gradient_clipping")[0]).toMatchObject({ type: "number >= 0", default: 0, required: false });
    expect(find("data.sequence_length")[0]).toMatchObject({ type: "integer >= 2", required: true });
    expect(find("model.type")[0]?.type).toBe("llama | mistral | qwen2 | qwen3 | gpt2");
    expect(find("optimizer.params.lr").map((key) => [key.default, key.appliesTo])).toEqual([
      [0.001, ["AdamW", "Adam", "SGD"]],
      [0.0001, ["Lion"]],
      [0.01, ["Adagrad"]],
    ]);
    expect(find("scheduler.params.total_num_steps")[0]).toMatchObject({
      required: true,
      appliesTo: ["WarmupDecayLR", "WarmupCosineLR"],
    });
  });

  it("becomes a reference with a row for every key", () => {
    const markdown = configReferenceMarkdown();
    const rows = markdown.split("\n").filter((line) => line.startsWith("| `"));
    const sections = keys.filter((key) => !key.path.includes(".") && key.type === "section");
    expect(rows.length + sections.length).toBe(keys.length);
    expect(markdown).toContain("| `steps_per_print` | integer >= 1 | `10` |");
    expect(markdown).toContain(
      '| `mode` | none \\| every_block \\| keep_attention \\| every_k \\| sqrt \\| budget | `"none"` |',
    );
  });
});
