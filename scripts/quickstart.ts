/**
 * `npm run quickstart`: trains a small Llama on Moby Dick, saves it, generates from it, and says where
 * everything is and what to type next.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { main } from "../src/cli/main.ts";

const config = join("examples", "quickstart", "config.yaml");
const output = join("runs", "quickstart");
const prompt = "The whale";

/** Runs one command as a person would type it, after showing it. */
async function run(...parameters: string[]): Promise<void> {
  const shown = parameters.map((part) => (part.includes(" ") ? `"${part}"` : part)).join(" ");
  console.log(`\n$ npx slipstream ${shown}`);
  await main(parameters);
  if (process.exitCode !== undefined && process.exitCode !== 0) process.exit(process.exitCode);
}

console.log("Slipstream's quickstart: a language model of 2 million parameters, from scratch, on Moby Dick.");
// A quickstart starts anew; a run of your own would not delete anything.
rmSync(output, { recursive: true, force: true });
await run("train", config);
await run(
  "generate",
  join(output, "model"),
  "--prompt",
  prompt,
  "--max-tokens",
  "60",
  "--temperature",
  "0.7",
);
console.log(`
Where everything is
  ${output}/model          the model, a Hugging Face folder (config.json, model.safetensors, tokenizer.json)
  ${output}/checkpoints    what a run needs to go on exactly where it was
  ${output}/metrics.jsonl  one line a step;  ${output}/loss.svg  the curve

What to type next
  npx slipstream generate ${output}/model --prompt "Call me"
  npx slipstream train ${config} --set max_steps=800 --set scheduler.params.total_num_steps=800 --set output_dir=runs/longer
  npx slipstream serve ${output}/model
  npx slipstream eval ${output}/model --text README.md
  npx slipstream doctor`);
