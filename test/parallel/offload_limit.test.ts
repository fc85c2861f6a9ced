import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, test } from "vitest";

/** Training under `memory.limit`, as a person runs it: a process of its own. */

const folder = mkdtempSync(join(tmpdir(), "slipstream-limit-"));
const disk = mkdtempSync(join(tmpdir(), "slipstream-disk-"));
afterAll(() => {
  for (const path of [folder, disk]) rmSync(path, { recursive: true, force: true });
});

const words = ["ka", "lo", "mi", "ren", "tu", "sha", "vel"];
const text = Array.from({ length: 4000 }, (_, place) => words[(place * place + 3 * place) % 7]).join(" ");
writeFileSync(join(folder, "text.txt"), `${text}\n`.repeat(3));

/** A Llama of 30 million parameters: 480 MB of states, beside what is packed and computed. */
const config = {
  model: {
    type: "llama",
    hidden_size: 512,
    num_hidden_layers: 8,
    num_attention_heads: 8,
    num_key_value_heads: 8,
    intermediate_size: 1408,
    vocab_size: 4096,
    max_position_embeddings: 64,
  },
  tokenizer: { train: { vocabulary_size: 270 } },
  data: { train: "text.txt", sequence_length: 32 },
  max_steps: 2,
  train_micro_batch_size_per_gpu: 2,
  gradient_accumulation_steps: 2,
  gradient_clipping: 1,
  optimizer: { type: "AdamW", params: { lr: 1e-3 } },
};

const child = fileURLToPath(new URL("../../bench/children/cli.ts", import.meta.url));

async function train(name: string, sections: object): Promise<{ errors: string; peak: number | undefined }> {
  const [file, peakFile] = [join(folder, `${name}.json`), join(folder, `${name}.peak`)];
  writeFileSync(file, JSON.stringify({ ...config, output_dir: name, ...sections }));
  const run = promisify(execFile)(process.execPath, [child, peakFile, "train", file], { cwd: folder });
  const errors = await run.then(
    () => "",
    (error: { stderr: string }) => error.stderr,
  );
  return { errors, peak: (JSON.parse(readFileSync(peakFile, "utf8")) as { peak?: number }).peak };
}

const saved = (name: string): Buffer => readFileSync(join(folder, name, "model", "model.safetensors"));
const mebibyte = 2 ** 20;

test("the process stays under the limit, and trains the same model", async () => {
  const inMemory = await train("memory", {});
  const limited = await train("limited", { memory: { limit: 350 * mebibyte, nvme_path: disk } });
  expect([inMemory.errors, limited.errors]).toEqual(["", ""]);
  expect(saved("limited").equals(saved("memory"))).toBe(true);
  expect(readdirSync(disk)).toEqual([]);
  if (inMemory.peak === undefined || limited.peak === undefined) return;
  expect(inMemory.peak).toBeGreaterThan(600 * mebibyte);
  expect(limited.peak).toBeLessThan(350 * mebibyte);
});

test("a limit too small for any plan is refused with the smallest that would do", async () => {
  const { errors } = await train("small", { memory: { limit: 200 * mebibyte, nvme_path: disk } });
  expect(errors).toMatch(
    /no placement of the training fits in the memory limit\n {2}where: {4}memory\.limit/,
  );
  expect(errors).toMatch(/expected: at least [\d.]+ MiB\n {2}received: 200 MiB/);
});

test("a limit without a folder, and a folder that does not exist", async () => {
  const { errors } = await train("nowhere", { memory: { limit: 350 * mebibyte } });
  expect(errors).toContain("memory.limit needs a folder for what does not fit");
  const offload_optimizer = { device: "nvme", nvme_path: join(disk, "none") };
  const missing = await train("missing", { zero_optimization: { offload_optimizer } });
  expect(missing.errors).toMatch(/the folder for states on disk does not exist\n {2}where: {4}.*none\n/);
});
