import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { DType, TensorData } from "../../base/dtype.ts";
import { pieceInMemory } from "../../base/pieces.ts";
import { loadPieces } from "../load_pieces.ts";
import { wholeBox } from "../runs.ts";
import { createSafetensors } from "../safetensors_writer.ts";
import { saveTrainingState } from "../training_state.ts";
import { findUniversal, findUniversalStates, openUniversal, saveUniversalStates } from "./index.ts";

let parent: string;
let folder: string;
beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), "slipstream-"));
  folder = join(parent, "global_step30_universal");
  await mkdir(join(folder, "zero"), { recursive: true });
});
afterEach(async () => {
  await rm(parent, { recursive: true });
});

interface Written {
  readonly dtype?: DType;
  readonly shape?: readonly number[];
  readonly values: TensorData;
  /** More tensors in the file. */
  readonly more?: readonly string[];
}

async function write(parameter: string, state: string, tensor: Written): Promise<void> {
  const { dtype = "f32", values, shape = [values.length], more = [] } = tensor;
  await mkdir(join(folder, "zero", parameter), { recursive: true });
  await createSafetensors(
    join(folder, "zero", parameter, `${state}.safetensors`),
    [`${parameter}/any name`, ...more].map((name) => ({ name, dtype, shape, data: () => values })),
  );
}

/** A parameter of 4 values with moments. */
async function writeParameter(name: string, first = 1): Promise<void> {
  const values = Float32Array.from({ length: 4 }, (_, index) => first + index);
  await write(name, "fp32", { values });
  await write(name, "exp_avg", { values: values.map((value) => value / 2) });
  await write(name, "exp_avg_sq", { values: values.map((value) => value * value) });
}

/** The error's text. */
async function refusal(work: () => Promise<unknown>): Promise<string> {
  return await work().then(
    () => "nothing was thrown",
    (error: Error) => error.message,
  );
}

test("weights and moments of any float type are read by range, under names without module.", async () => {
  await write("module.w", "fp32", { values: Float32Array.of(1, 2, 3, 4, 5, 6), shape: [2, 3] });
  // bfloat16 keeps the upper half of a float32's bits: 1 is 0x3f80, -2 is 0xc000.
  const halves = Uint16Array.of(0x3f80, 0xc000, 0, 0x3f80, 0xc000, 0x4000);
  await write("module.w", "exp_avg", { dtype: "bf16", values: halves, shape: [2, 3] });
  const doubles = Float64Array.of(0.1, 0.2, 0.3, 0.4, 0.5, 0.6);
  await write("module.w", "exp_avg_sq", { dtype: "f64", values: doubles, shape: [2, 3] });
  const checkpoint = await openUniversal(folder);
  expect(checkpoint).toMatchObject({ hasMoments: true, step: 30, updates: 30 });
  const reader = checkpoint.weights(() => undefined);
  expect(reader.names()).toEqual(["w"]);
  expect(reader.info("w")).toEqual({ dtype: "f32", shape: [2, 3], byteLength: 24 });
  const found: Record<string, number[]> = {};
  for (const piece of checkpoint.pieces("w", "renamed", [2, 3])) {
    expect(piece).toMatchObject({ name: "renamed", shape: [2, 3], start: 0, end: 6 });
    const part = new Float32Array(3);
    await piece.read(1, part);
    found[piece.kind] = [...part];
  }
  expect(found).toEqual({
    parameters: [2, 3, 4],
    first_moment: [-2, 0, 1],
    second_moment: [0.2, 0.3, 0.4].map(Math.fround),
  });
});

test("flat tensors of ZeRO-3 take the model's shape where it has as many elements", async () => {
  await writeParameter("w");
  const { weights } = await openUniversal(folder);
  expect(weights(() => [2, 2]).info("w").shape).toEqual([2, 2]);
  expect(weights(() => [2, 3]).info("w").shape).toEqual([4]);
  expect(weights(() => undefined).info("w").shape).toEqual([4]);
});

describe("steps", () => {
  test("the optimizer's step counts updates, the folder's name steps", async () => {
    await writeParameter("w");
    await write("w", "step", { values: Float32Array.of(28), shape: [] });
    await writeParameter("b");
    await write("b", "step", { dtype: "i32", values: Int32Array.of(28), shape: [1] });
    expect(await openUniversal(folder)).toMatchObject({ step: 30, updates: 28 });
  });

  test("differ, or are no counts", async () => {
    await writeParameter("a");
    await writeParameter("b");
    await write("a", "step", { values: Float32Array.of(28), shape: [] });
    await write("b", "step", { values: Float32Array.of(27), shape: [] });
    const [a, b] = ["a", "b"].map((name) => join(folder, "zero", name, "step.safetensors"));
    expect(await refusal(() => openUniversal(folder))).toContain(`received: 28 in ${a}, 27 in ${b}`);
    await rm(b!);
    await write("b", "step", { values: Float32Array.of(1.5), shape: [] });
    expect(await refusal(() => openUniversal(folder))).toMatch(/not a count of updates[\s\S]*received: 1.5/);
    await rm(b!);
    await write("b", "step", { values: Float32Array.of(28, 28) });
    expect(await refusal(() => openUniversal(folder))).toMatch(/received: a tensor \[2\]/);
  });
});

describe("what is missing or wrong is named", () => {
  test("a parameter without a moment, or without weights", async () => {
    await writeParameter("a");
    await writeParameter("module.b");
    await rm(join(folder, "zero/module.b/exp_avg.safetensors"));
    expect(await refusal(() => openUniversal(folder))).toBe(
      [
        "parameters of a universal checkpoint lack exp_avg.safetensors",
        `  where:    ${join(folder, "zero")}`,
        "  expected: exp_avg.safetensors in the folder of each of 2 parameters",
        "  received: none in module.b",
        "  to do:    copy the checkpoint whole; where its optimizer is not to be taken along, remove exp_avg and exp_avg_sq of every parameter",
      ].join("\n"),
    );
    await rm(join(folder, "zero/a/fp32.safetensors"));
    expect(await refusal(() => openUniversal(folder))).toMatch(/lack fp32\.safetensors[\s\S]*none in a\n/);
  });

  test("no moments at all: weights only", async () => {
    await write("a", "fp32", { values: Float32Array.of(1) });
    const checkpoint = await openUniversal(folder);
    expect(checkpoint.hasMoments).toBe(false);
    expect(checkpoint.pieces("a", "a", [1]).map(({ kind }) => kind)).toEqual(["parameters"]);
  });

  test("a moment of another shape, or of integers", async () => {
    await writeParameter("a");
    const path = join(folder, "zero/a/exp_avg_sq.safetensors");
    await rm(path);
    await write("a", "exp_avg_sq", { values: new Float32Array(4), shape: [2, 2] });
    const text = await refusal(() => openUniversal(folder));
    expect(text).toContain(`a moment has another shape than its weights\n  where:    ${path}\n`);
    expect(text).toContain(
      `expected: [4], as ${join(folder, "zero/a/fp32.safetensors")}\n  received: [2, 2]\n`,
    );
    await rm(path);
    await write("a", "exp_avg_sq", { dtype: "i32", values: new Int32Array(4) });
    expect(await refusal(() => openUniversal(folder))).toMatch(/is not of floats[\s\S]*received: i32/);
  });

  test("two tensors in a file, a parameter twice, none at all", async () => {
    expect(await refusal(() => openUniversal(folder))).toMatch(
      /^a universal checkpoint holds no parameters\n/,
    );
    await write("a", "fp32", { values: new Float32Array(2), more: ["second"] });
    expect(await refusal(() => openUniversal(folder))).toContain("received: 2: a/any name, second");
    await write("module.a", "fp32", { values: new Float32Array(2) });
    expect(await refusal(() => openUniversal(folder))).toContain("received: a and module.a");
  });

  test("a pickled moment among safetensors; a pickle beside its conversion is left alone", async () => {
    await writeParameter("a");
    await writeFile(join(folder, "zero/a/exp_avg.pt"), "");
    await writeFile(join(folder, "zero/a/step.pt"), "");
    await openUniversal(folder);
    await rm(join(folder, "zero/a/exp_avg.safetensors"));
    const text = await refusal(() => openUniversal(folder));
    expect(text).toMatch(/^the checkpoint is pickled: reading a pickle runs whatever code is in it/);
    expect(text).toContain("received: zero/a/exp_avg.pt\n");
  });
});

describe("what is a universal checkpoint", () => {
  test("a folder with zero/, or one whose latest_universal names it", async () => {
    expect(await findUniversal(folder)).toBe(folder);
    expect(await findUniversal(parent)).toBeUndefined();
    await writeFile(join(parent, "latest_universal"), "global_step30_universal");
    expect(await findUniversal(parent)).toBe(folder);
    await writeFile(join(parent, "latest_universal"), "../elsewhere");
    expect(await findUniversal(parent)).toBeUndefined();
    expect(await findUniversal(join(parent, "absent"))).toBeUndefined();
    await writeFile(join(parent, "mp_rank_00_model_states.pt"), "");
    expect(await refusal(() => findUniversal(parent))).toContain("ds_to_universal");
    await writeFile(join(parent, "config.json"), "{}");
    expect(await findUniversal(parent)).toBeUndefined();
  });
});

test("saved states are found again, and a run's own are not taken for them", async () => {
  await writeParameter("a");
  const root = join(parent, "checkpoint");
  const checkpoint = await openUniversal(folder);
  await saveUniversalStates(root, checkpoint.pieces("a", "w", [2, 2]), { step: 30, updates: 28 });
  const states = await findUniversalStates(root);
  expect(states).toEqual({ folder: join(root, "step-30"), step: 30, updates: 28 });
  const values = new Float32Array(4);
  const piece = { name: "w", shape: [2, 2], box: wholeBox([2, 2]), start: 0, end: 4 };
  await loadPieces(states.folder, [pieceInMemory("second_moment", piece, values)]);
  expect([...values]).toEqual([1, 4, 9, 16]);
  await saveTrainingState(root, 31, { pieces: [], state: { config: {} } });
  expect(await refusal(() => findUniversalStates(root))).toMatch(/step-31, which a run of Slipstream wrote/);
  expect(await refusal(() => findUniversalStates(join(parent, "none")))).toMatch(/received: no checkpoint\n/);
});
