import { describe, expect, test } from "vitest";
import { readSafetensors, Workplace } from "./support.ts";

/** What the contract names; `elapsed_seconds` and others may stand beside them. */
const contractKeys = [
  "step",
  "loss",
  "learning_rate",
  "gradient_norm",
  "tokens",
  "tokens_per_second",
  "step_seconds",
  "memory_bytes",
];

describe("a run from a config", () => {
  test("writes what the contract says, and the model folder generates and evaluates", async () => {
    using place = new Workplace();
    const config = place.config({
      data: { validation: 0.1 },
      checkpoint: { every_steps: 5, keep_last: 2 },
      evaluation: { every_steps: 10 },
      samples: { every_steps: 10, prompts: ["The whale", ""], max_tokens: 6 },
    });
    const { output, errors } = await place.train([config]);
    expect(errors).toBe("");
    expect(place.list("out")).toEqual([
      "cache",
      "checkpoints",
      "loss.svg",
      "metrics.jsonl",
      "model",
      "tokenizer",
    ]);
    expect(place.list("out", "checkpoints")).toEqual(["step-15", "step-20"]);
    const lines = place.metrics();
    expect(lines.map(({ step }) => step)).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
    for (const line of lines) {
      for (const key of contractKeys)
        expect(line[key], `${key} of step ${line.step}`).toEqual(expect.any(Number));
      expect(line.tokens).toBe(line.step * 64);
      expect(line.learning_rate).toBe(0.003);
    }
    expect(
      lines.filter(({ evaluation_loss: loss }) => typeof loss === "number").map(({ step }) => step),
    ).toEqual([10, 20]);
    // Untrained, every one of the tokens is about as likely as another.
    expect(Math.abs(lines[0]!.loss - Math.log(280))).toBeLessThan(0.1);
    expect(lines.at(-1)!.loss).toBeLessThan(lines[0]!.loss - 1);
    expect(place.read("out", "loss.svg")).toMatch(/^<svg [\s\S]*<\/svg>\s*$/);
    expect(output).toContain("model:      out/model\n");
    expect(output).toMatch(/20 steps in .*: loss \d\.\d{4}, evaluation loss \d\.\d{4}\n/);

    expect(place.list("out", "model")).toEqual([
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const modelConfig = JSON.parse(place.read("out", "model", "config.json")) as Record<string, unknown>;
    expect(modelConfig).toMatchObject({
      model_type: "llama",
      architectures: ["LlamaForCausalLM"],
      vocab_size: 280,
      hidden_size: 32,
      num_hidden_layers: 2,
    });
    const weights = readSafetensors(place.path("out", "model", "model.safetensors"));
    expect(weights.get("model.embed_tokens.weight")).toMatchObject({ shape: [280, 32] });
    expect(weights.has("model.layers.1.self_attn.q_proj.weight")).toBe(true);

    const generate = ["generate", "out/model", "--temperature", "0", "--max-tokens", "5", "--json"];
    const byText = await place.run([...generate, "--prompt", "The whale"]);
    expect(byText).toMatchObject({ status: 0, errors: "" });
    const first = JSON.parse(byText.output) as { prompt_ids: number[]; ids: number[]; text: string };
    expect(Object.keys(first)).toEqual(["prompt_ids", "ids", "text"]);
    expect(first.ids.length).toBeGreaterThan(0);
    const byIds = await place.run([...generate, "--ids", first.prompt_ids.join()]);
    expect(JSON.parse(byIds.output)).toEqual(first);

    place.write("held-out.txt", "The otter looks at the heron at 13 o'clock, quietly.\n".repeat(4));
    const evaluated = await place.run(["eval", "out/model", "--text", "held-out.txt", "--window", "32"]);
    const result = JSON.parse(evaluated.output) as Record<string, number>;
    expect(Object.keys(result)).toEqual(["loss", "perplexity", "tokens"]);
    expect(result.loss).toBeLessThan(Math.log(280) - 0.5);
    expect(result.perplexity).toBeCloseTo(Math.exp(result.loss!), 6);
  });
});
