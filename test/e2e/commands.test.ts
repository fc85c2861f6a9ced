import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test } from "vitest";

const root = resolve(import.meta.dirname, "../..");
const llama = join(root, "test/golden/models/llama");
const golden = JSON.parse(readFileSync(join(llama, "golden.json"), "utf8")) as {
  readonly sequences: number[][];
  readonly loss: number;
  readonly greedy: { readonly prompt: number[]; readonly ids: number[] };
};
const folder = mkdtempSync(join(tmpdir(), "slipstream-commands-"));

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface Outcome {
  readonly status: number | null;
  readonly output: string;
  readonly errors: string;
}

/** Runs `slipstream` as a person would. */
function slipstream(parameters: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  return new Promise((done, reject) => {
    const child = spawn(process.execPath, [join(root, "bin/slipstream.js"), ...parameters], {
      cwd: folder,
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let output = "";
    let errors = "";
    child.stdout.setEncoding("utf8").on("data", (piece: string) => {
      output += piece;
    });
    child.stderr.setEncoding("utf8").on("data", (piece: string) => {
      errors += piece;
    });
    child.on("error", reject);
    child.on("close", (status) => done({ status, output, errors }));
  });
}

test("help and version", async () => {
  const help = await slipstream(["--help"]);
  expect(help).toMatchObject({ status: 0, errors: "" });
  for (const name of ["generate", "eval", "doctor"]) expect(help.output).toContain(`  ${name} `);
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  expect(await slipstream(["--version"])).toEqual({ status: 0, output: `${version}\n`, errors: "" });
});

test("wrong usage ends with status 2 and prints nothing on standard output", async () => {
  for (const parameters of [
    ["generat", llama],
    ["generate", llama, "--ids", "1", "--max-token", "3"],
    ["generate", llama],
    ["eval", llama, "--ids-file", "x.json", "--window", "100000"],
    ["doctor", "surplus"],
  ]) {
    if (parameters.includes("x.json")) writeFileSync(join(folder, "x.json"), "[1, 2, 3]");
    const { status, output, errors } = await slipstream(parameters);
    expect({ status, output }, parameters.join(" ")).toEqual({ status: 2, output: "" });
    expect(errors).not.toMatch(/^ {4}at /m);
  }
});

test("a model that is not there ends with status 1 and names the file", async () => {
  const { status, errors } = await slipstream(["generate", "nowhere", "--ids", "1"]);
  expect(status).toBe(1);
  expect(errors).toContain("config.json");
  expect(errors).not.toMatch(/^ {4}at /m);
});

test("doctor tells programs what it found", async () => {
  const { status, output } = await slipstream(["doctor", "--json"], { SLIPSTREAM_ISA: "scalar" });
  expect(status).toBe(0);
  const report = JSON.parse(output) as { backend: object; instructionSet: object; problems: string[] };
  expect(report.backend).toMatchObject({ name: "native", addonBuilt: true });
  expect(report.instructionSet).toMatchObject({ inUse: "scalar", forced: "scalar" });
  expect(report.problems).toEqual([]);
});

test("generate continues token ids as PyTorch does", async () => {
  const { prompt, ids } = golden.greedy;
  const parameters = ["generate", llama, "--ids", prompt.join(), "--max-tokens", String(ids.length)];
  const { status, output } = await slipstream([...parameters, "--temperature", "0", "--json"]);
  expect(status).toBe(0);
  expect(JSON.parse(output)).toEqual({ prompt_ids: prompt, ids, text: null });
});

test("eval gives PyTorch's loss, and a timeline on demand", async () => {
  writeFileSync(join(folder, "ids.json"), JSON.stringify(golden.sequences));
  const { status, output } = await slipstream([
    "eval",
    llama,
    "--ids-file",
    "ids.json",
    "--trace",
    "trace.json",
  ]);
  expect(status).toBe(0);
  const { loss, perplexity, tokens } = JSON.parse(output) as Record<string, number>;
  expect(Math.abs(loss! / golden.loss - 1)).toBeLessThan(1e-5);
  expect(Math.abs(perplexity! / Math.exp(golden.loss) - 1)).toBeLessThan(1e-4);
  expect(tokens).toBe(golden.sequences.reduce((sum, sequence) => sum + sequence.length - 1, 0));
  const { traceEvents } = JSON.parse(readFileSync(join(folder, "trace.json"), "utf8")) as {
    traceEvents: { name: string; cat?: string }[];
  };
  expect(traceEvents.some((event) => event.cat === "kernel" && event.name === "attention")).toBe(true);
});

const stories = resolve(root, "../shared/data/stories260K");
describe.skipIf(!existsSync(stories))("stories260K (skipped where shared/data is absent)", () => {
  test("greedy from an empty prompt writes the published story", async () => {
    const parameters = ["generate", stories, "--prompt", "", "--temperature", "0", "--max-tokens", "45"];
    const { status, output } = await slipstream(parameters);
    expect(status).toBe(0);
    expect(output).toMatch(
      /^Once upon a time, there was a little girl named Lily\. She loved to play outside in the park\. One day, she saw a big, red ball\./,
    );
    const json = await slipstream([...parameters, "--json"]);
    expect(`${(JSON.parse(json.output) as { text: string }).text}\n`).toBe(output);
  });
});
