import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, open, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileFormatError, InternalError } from "../base/errors.ts";
import { pieceInMemory, type StatePiece } from "../base/pieces.ts";
import { elementCount } from "../base/shape.ts";
import { loadPieces } from "./load_pieces.ts";
import { wholeBox } from "./runs.ts";
import { latestCheckpoint, loadState, saveTrainingState, type TrainingState } from "./training_state.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

function stateOf(step: number): TrainingState {
  return {
    pieces: [
      whole("parameters", "w", [2, 2], Float32Array.of(step, 1, 2, 3)),
      whole("moment", "w", [3], Float32Array.of(step, 5, 6)),
    ],
    state: { step, data: { epoch: 0.5, position: 2 ** 53 - 1 }, seeds: ["é", null, true] },
  };
}

function whole(kind: string, name: string, shape: readonly number[], values: Float32Array): StatePiece {
  return pieceInMemory(kind, { name, shape, box: wholeBox(shape), start: 0, end: values.length }, values);
}

/** What a checkpoint holds of whole tensors. */
async function loaded(checkpoint: string, kind: string, name: string, shape: readonly number[]) {
  const values = new Float32Array(elementCount(shape));
  await loadPieces(checkpoint, [whole(kind, name, shape, values)]);
  return values;
}

async function steps(): Promise<string[]> {
  return (await readdir(folder)).toSorted();
}

test("what is saved is loaded", async () => {
  const saved = await saveTrainingState(folder, 7, stateOf(7));
  expect(saved.folder).toBe(join(folder, "step-7"));
  const { checkpoint, notes } = await latestCheckpoint(folder);
  expect({ checkpoint, notes }).toEqual({ checkpoint: { folder: saved.folder, step: 7 }, notes: [] });
  expect(await loadState(saved.folder)).toEqual({
    step: 7,
    data: { epoch: 0.5, position: 9007199254740991 },
    seeds: ["é", null, true],
  });
  expect(await loaded(saved.folder, "parameters", "w", [2, 2])).toEqual(Float32Array.of(7, 1, 2, 3));
  expect(await loaded(saved.folder, "moment", "w", [3])).toEqual(Float32Array.of(7, 5, 6));
  let bytes = 0;
  for (const name of await readdir(saved.folder)) bytes += (await readFile(join(saved.folder, name))).length;
  expect(saved.bytes).toBe(bytes);
});

test("the manifest holds the checksum of each whole file, also of one of several chunks", async () => {
  const large = new Float32Array(2.5 * 2 ** 20).map((_, i) => i);
  const pieces = [whole("parameters", "w", [large.length], large)];
  await saveTrainingState(folder, 1, { pieces, state: {} });
  const read = (name: string) => readFile(join(folder, "step-1", name));
  const { files } = JSON.parse((await read("complete.json")).toString()) as {
    files: Record<string, unknown>;
  };
  for (const name of ["state.json", "pieces.json", "tensors.safetensors"]) {
    const content = await read(name);
    expect(files[name]).toEqual({ bytes: content.length, crc32: crc32(content) });
  }
  expect((await latestCheckpoint(folder)).checkpoint?.step).toBe(1);
});

test("a step may be saved again, and steps are numbers, not text", async () => {
  await saveTrainingState(folder, 9, stateOf(1));
  await saveTrainingState(folder, 10, stateOf(2));
  await saveTrainingState(folder, 10, stateOf(3));
  const { checkpoint } = await latestCheckpoint(folder);
  expect(checkpoint?.step).toBe(10);
  expect((await loadState(checkpoint!.folder, { verified: true })).step).toBe(3);
  expect(await steps()).toEqual(["step-10", "step-9"]);
});

test("nothing is there before the first checkpoint", async () => {
  expect(await latestCheckpoint(join(folder, "absent"))).toEqual({ checkpoint: undefined, notes: [] });
  await mkdir(join(folder, "step-x"));
  await writeFile(join(folder, "notes"), "");
  expect(await latestCheckpoint(folder)).toEqual({ checkpoint: undefined, notes: [] });
});

describe("keepLast", () => {
  test("keeps the newest K", async () => {
    await saveTrainingState(folder, 1, stateOf(1));
    await saveTrainingState(folder, 2, stateOf(2));
    const saved = await saveTrainingState(folder, 10, stateOf(10), { keepLast: 2 });
    expect(saved.removed).toEqual([join(folder, "step-1")]);
    expect(await steps()).toEqual(["step-10", "step-2"]);
    await saveTrainingState(folder, 11, stateOf(11), { keepLast: 1 });
    expect(await steps()).toEqual(["step-11"]);
  });

  test("removes nothing while the new one is not complete", async () => {
    await saveTrainingState(folder, 1, stateOf(1), { keepLast: 1 });
    const { pieces, state } = stateOf(2);
    const watching = pieces.map(({ resident: _, ...piece }) => ({
      ...piece,
      read: async (offset: number, into: Float32Array) => {
        expect(await steps()).toContain("step-1");
        await piece.read(offset, into);
      },
    }));
    await saveTrainingState(folder, 2, { pieces: watching, state }, { keepLast: 1 });
    expect(await steps()).toEqual(["step-2"]);
    const failing = pieces.map(({ resident: _, ...piece }) => ({
      ...piece,
      read: () => Promise.reject(new Error("no")),
    }));
    const failed = saveTrainingState(folder, 3, { pieces: failing, state }, { keepLast: 1 });
    await expect(failed).rejects.toThrow("no");
    expect(await steps()).toEqual(["step-2"]);
  });

  test("counts no damaged checkpoint among the kept, and leaves later steps alone", async () => {
    for (const step of [1, 2, 3, 30]) await saveTrainingState(folder, step, stateOf(step));
    await truncate(join(folder, "step-3/tensors.safetensors"), 10);
    await saveTrainingState(folder, 4, stateOf(4), { keepLast: 2 });
    expect(await steps()).toEqual(["step-2", "step-3", "step-30", "step-4"]);
  });

  test("must be at least one", async () => {
    await expect(saveTrainingState(folder, 1, stateOf(1), { keepLast: 0 })).rejects.toThrow(InternalError);
    await expect(saveTrainingState(folder, 1.5, stateOf(1))).rejects.toThrow(/step 1\.5/);
  });
});

describe("a damaged newest checkpoint is skipped with a note, and does not load:", () => {
  const damages: [string, (path: string) => Promise<void>, RegExp][] = [
    ["no manifest", (path) => rm(join(path, "complete.json")), /does not exist[\s\S]*complete\.json/],
    ["an empty manifest", (path) => truncate(join(path, "complete.json"), 0), /does not hold JSON/],
    ["another format", (path) => writeFile(join(path, "complete.json"), "{}"), /format undefined/],
    [
      "another version",
      async (path) => {
        const manifest = join(path, "complete.json");
        const text = await readFile(manifest, "utf8");
        await writeFile(manifest, text.replace('"version": 2', '"version": 99'));
      },
      /received: format slipstream-training-state, version 99/,
    ],
    [
      "a file not listed",
      async (path) => {
        const manifest = join(path, "complete.json");
        await writeFile(manifest, (await readFile(manifest, "utf8")).replace('"state.json"', '"other"'));
      },
      /expected: bytes and crc32 of state\.json/,
    ],
    [
      "no tensors",
      (path) => rm(join(path, "tensors.safetensors")),
      /does not exist[\s\S]*tensors\.safetensors/,
    ],
    ["tensors cut short", (path) => truncate(join(path, "tensors.safetensors"), 50), /received: 50 bytes/],
    ["one bit changed", (path) => flipBit(join(path, "tensors.safetensors")), /is damaged[\s\S]*checksum/],
    ["another state", (path) => flipBit(join(path, "state.json")), /state\.json[\s\S]*checksum/],
  ];
  test.each(damages)("%s", async (_, damage, message) => {
    await saveTrainingState(folder, 1, stateOf(1));
    await saveTrainingState(folder, 2, stateOf(2));
    await damage(join(folder, "step-2"));
    const { checkpoint, notes } = await latestCheckpoint(folder);
    expect(checkpoint?.step).toBe(1);
    expect(notes).toHaveLength(1);
    expect(notes[0]).toMatch(/^skipped the checkpoint .*step-2, which is not complete/);
    expect(notes[0]).toMatch(message);
    const failed = loadState(join(folder, "step-2"));
    await expect(failed).rejects.toThrow(FileFormatError);
    await expect(failed).rejects.toThrow(message);
  });

  async function flipBit(path: string): Promise<void> {
    const handle = await open(path, "r+");
    const { size } = await handle.stat();
    const byte = new Uint8Array(1);
    await handle.read(byte, 0, 1, size - 2);
    await handle.write(Uint8Array.of(byte[0]! ^ 1), 0, 1, size - 2);
    await handle.close();
  }
});

test("a state that JSON cannot hold is refused before anything is written", async () => {
  const { pieces } = stateOf(1);
  const failed = saveTrainingState(folder, 1, { pieces, state: { best: { loss: Number.NaN } } });
  await expect(failed).rejects.toThrow(/internal: best\.loss is NaN/);
  expect(await steps()).toEqual([]);
});

describe("kill -9", () => {
  const imports = `import { saveTrainingState } from ${JSON.stringify(new URL("./training_state.ts", import.meta.url).href)};
    const root = ${"process.argv[1]"};
    const piece = (name, elements, value, read) => ({
      kind: "parameters", name, shape: [elements], box: { starts: [0], sizes: [elements] }, start: 0, end: elements,
      read: read ?? (async (offset, into) => { into.fill(value); }),
    });`;
  const start = (program: string) =>
    spawn(process.execPath, ["--input-type=module", "-e", imports + program, folder], {
      stdio: ["ignore", "pipe", "inherit"],
    });

  test("in the middle of a checkpoint: the one before is the latest and loads", async () => {
    const child = start(`
      const pieces = [piece("a", 1000, 1), piece("b", 1000, 2)];
      await saveTrainingState(root, 1, { pieces, state: { step: 1 } });
      const stuck = () => new Promise(() => { process.stdout.write("saving"); setInterval(() => {}, 1000); });
      const later = [piece("a", 1000, 3), piece("b", 1000, 0, stuck)];
      await saveTrainingState(root, 2, { pieces: later, state: { step: 2 } }, { keepLast: 1 });
    `);
    await once(child.stdout, "data");
    const before = await steps();
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(before).toHaveLength(2);
    expect(before[1]).toMatch(/^step-2\.tmp-/);

    const { checkpoint, notes } = await latestCheckpoint(folder);
    expect({ step: checkpoint?.step, notes }).toEqual({ step: 1, notes: [] });
    expect(await loadState(checkpoint!.folder)).toEqual({ step: 1 });
    expect(await loaded(checkpoint!.folder, "parameters", "b", [1000])).toEqual(
      new Float32Array(1000).fill(2),
    );
    await saveTrainingState(folder, 2, stateOf(2));
    expect(await steps()).toEqual(["step-1", "step-2"]);
  });

  test("at any moment: the latest is complete and of one step", async () => {
    const elements = 200_000;
    let last = 0;
    for (let round = 0; round < 6; round++) {
      // Each round goes on after the last, saving every step twice, so that folders are replaced too.
      const child = start(`
        for (let step = ${last + 1}; ; step++) {
          for (let again = 0; again < 2; again++) {
            const pieces = ["a", "b"].map((name) => piece(name, ${elements}, step));
            await saveTrainingState(root, step, { pieces, state: { step } }, { keepLast: 1 });
            process.stdout.write(".");
          }
        }
      `);
      await once(child.stdout, "data");
      child.stdout.resume();
      await sleep(7 * round);
      child.kill("SIGKILL");
      await once(child, "exit");
      const { checkpoint } = await latestCheckpoint(folder);
      expect(checkpoint!.step).toBeGreaterThan(last);
      last = checkpoint!.step;
      expect(await loadState(checkpoint!.folder)).toEqual({ step: last });
      for (const name of ["a", "b"]) {
        expect(new Set(await loaded(checkpoint!.folder, "parameters", name, [elements]))).toEqual(
          new Set([last]),
        );
      }
    }
  });
});
