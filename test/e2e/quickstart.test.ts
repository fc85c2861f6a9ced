import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const folder = mkdtempSync(join(tmpdir(), "slipstream-quickstart-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("the quickstart trains a model that writes, and leaves what it says it leaves", () => {
  symlinkSync(join(root, "examples"), join(folder, "examples"));
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, "scripts/quickstart.ts")], {
    cwd: folder,
    encoding: "utf8",
  });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  const run = join(folder, "runs/quickstart");
  const metrics = readFileSync(join(run, "metrics.jsonl"), "utf8").trim().split("\n");
  const losses = metrics.map((line) => (JSON.parse(line) as { loss: number }).loss);
  // A vocabulary of 2048 starts at ln 2048 = 7.62; the distribution of single tokens is at about 6.4.
  expect(losses[0]!).toBeGreaterThan(7.3);
  expect(losses.at(-1)!).toBeLessThan(5.5);
  for (const name of ["model/config.json", "model/model.safetensors", "model/tokenizer.json", "loss.svg"]) {
    expect(existsSync(join(run, name)), name).toBe(true);
  }
  const written = stdout.slice(stdout.indexOf("$ npx slipstream generate")).split("\n")[1] ?? "";
  expect(written.startsWith("The whale")).toBe(true);
  expect(written.length).toBeGreaterThan(60);
  expect(stdout).toContain("What to type next");
}, 300_000);
