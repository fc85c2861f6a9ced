/**
 * The memory that training the 30M-parameter Llama takes, against what `slipstream plan` says: both commands
 * run as a person runs them, each in a process of its own.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bar, type Figure, figure } from "../../src/cli/bench/measurement.ts";
import type { RunSuite, SuiteContext } from "../../src/cli/bench/suite.ts";
import type { TrainingPlan } from "../../src/train/plan/index.ts";
import { runChild } from "../harness/child.ts";
import { llama30M } from "../harness/llama.ts";
import type { FloatDType } from "../harness/tensors.ts";

const rows = 8;
const length = 256;
const steps = 4;
/** The bar of issue 2: how far the peak may be from the plan. */
const allowedDifference = 0.1;

/** Lines of made-up words: enough tokens for the steps, whatever the tokenizer makes of them. */
function makeText(): string {
  const syllables = ["ka", "lo", "mi", "ren", "tu", "sha", "vel", "or", "ist", "en"];
  let state = 1;
  const draw = (count: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * count);
  };
  const word = () => Array.from({ length: 1 + draw(3) }, () => syllables[draw(10)]).join("");
  return Array.from({ length: 2000 }, () => Array.from({ length: 20 }, word).join(" ")).join("\n");
}

function configOf(dtype: FloatDType): object {
  const { dim, layers, heads, ffn, vocabulary } = llama30M;
  return {
    model: {
      type: "llama",
      hidden_size: dim,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: heads,
      intermediate_size: ffn,
      vocab_size: vocabulary,
      max_position_embeddings: length,
    },
    tokenizer: { train: { vocabulary_size: 300 } },
    data: { train: "text.txt", sequence_length: length },
    output_dir: `out-${dtype}`,
    max_steps: steps,
    train_micro_batch_size_per_gpu: rows,
    gradient_clipping: 1,
    bf16: { enabled: dtype === "bf16" },
    optimizer: { type: "AdamW", params: { lr: 1e-3 } },
  };
}

async function measure({ report }: SuiteContext, folder: string, dtype: FloatDType): Promise<void> {
  const config = `${dtype}.json`;
  writeFileSync(join(folder, config), JSON.stringify(configOf(dtype)));
  const peakFile = join(folder, `${dtype}.peak`);
  const printed = await runChild("cli", [peakFile, "plan", config, "--json"], folder);
  const plan = JSON.parse(printed) as TrainingPlan;
  await runChild("cli", [peakFile, "train", config], folder);
  const metrics = readFileSync(join(folder, `out-${dtype}`, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n");
  if (metrics.length !== steps) throw new Error(`training wrote ${metrics.length} of ${steps} steps`);
  const { peak } = JSON.parse(readFileSync(peakFile, "utf8")) as { readonly peak?: number };
  const { total, ...kinds } = plan.memory;
  const figures: Figure[] = [figure("planned", "bytes", total)];
  if (peak !== undefined) {
    figures.push(figure("peak of resident memory", "bytes", peak));
    figures.push(figure("peak against the plan", "ratio", peak / total));
  }
  for (const [kind, bytes] of Object.entries(kinds)) {
    if (bytes > 0) figures.push(figure(`planned, ${kind}`, "bytes", bytes));
  }
  const difference = peak === undefined ? undefined : Math.abs(peak / total - 1);
  const reason = peak === undefined ? "the system does not tell peak memory" : undefined;
  const measure = `memory of ${dtype} training: difference from the plan`;
  report({
    name: `${dtype}, ${plan.parameters.total} parameters, ${rows} x ${length} tokens, ${steps} steps`,
    figures,
    bars: [bar(measure, "share", "at most", allowedDifference, difference, reason)],
    notes: [],
  });
}

export const run: RunSuite = async (context) => {
  const folder = mkdtempSync(join(tmpdir(), "slipstream-bench-"));
  try {
    writeFileSync(join(folder, "text.txt"), makeText());
    for (const dtype of ["bf16", "f32"] as const) await measure(context, folder, dtype);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
