import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RunError } from "../base/errors.ts";
import { pieceInMemory } from "../base/pieces.ts";
import { nameBeside, removeLeftovers, writeFileAtomically, writeFolderAtomically } from "./atomic.ts";
import { asWriteError } from "./file_errors.ts";
import { FileWriter } from "./file_writer.ts";
import { writeSafetensors } from "./safetensors_writer.ts";
import { latestCheckpoint, saveTrainingState } from "./training_state.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slipstream-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

async function failureOf(promise: Promise<unknown>): Promise<RunError> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(RunError);
  return error as RunError;
}

/** Runs a program that imports this room's files and has ended when this returns. */
function runToItsEnd(program: string): void {
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
  });
  expect(stderr.replaceAll(/.*ExperimentalWarning.*\n.*\n/g, "")).toBe("");
  expect(status).toBe(0);
}

/** Files and folders under the names that a process which has ended would have given them. */
function leaveBehind(kind: "tmp" | "old", names: readonly string[]): void {
  runToItsEnd(`
    import { mkdirSync, writeFileSync } from "node:fs";
    import { nameBeside } from ${JSON.stringify(new URL("./atomic.ts", import.meta.url).href)};
    for (const name of ${JSON.stringify(names)}) {
      const path = nameBeside(${JSON.stringify(folder)} + "/" + name, "${kind}");
      mkdirSync(path);
      writeFileSync(path + "/content", name);
    }
  `);
}

describe("a file", () => {
  test("is made with its folders, replaced, and leaves nothing beside it", async () => {
    const path = join(folder, "a/b/file.txt");
    await writeFileAtomically(path, "é one");
    await writeFileAtomically(path, Uint8Array.of(104, 105));
    expect(await readFile(path, "utf8")).toBe("hi");
    expect(await readdir(join(folder, "a/b"))).toEqual(["file.txt"]);
  });

  test("may be written by many at once: one of them wins, whole", async () => {
    const path = join(folder, "file");
    const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(1000 + i));
    await Promise.all(texts.map((text) => writeFileAtomically(path, text)));
    expect(texts).toContain(await readFile(path, "utf8"));
    expect(await readdir(folder)).toEqual(["file"]);
  });

  test("that cannot be written gives an error that says so, and nothing changes", async () => {
    await writeFile(join(folder, "blocker"), "stays");
    const error = await failureOf(writeFileAtomically(join(folder, "blocker/file"), "text"));
    expect(error.code).toBe("write_failed");
    expect(error.message).toMatch(/where: .*blocker\/file[\s\S]*everything saved earlier is intact/);
    expect(await readFile(join(folder, "blocker"), "utf8")).toBe("stays");
    await mkdir(join(folder, "taken/inside"), { recursive: true });
    await failureOf(writeFileAtomically(join(folder, "taken"), "text"));
    expect((await readdir(folder)).toSorted()).toEqual(["blocker", "taken"]);
  });
});

describe("a folder", () => {
  test("is replaced all at once, and what the writer returns is passed on", async () => {
    const path = join(folder, "model");
    await mkdir(path);
    await writeFile(join(path, "old"), "");
    const result = await writeFolderAtomically(path, async (temporary) => {
      await mkdir(join(temporary, "inner"));
      await writeFile(join(temporary, "inner/new"), "text");
      expect(await readdir(path)).toEqual(["old"]);
      return 5;
    });
    expect(result).toBe(5);
    expect(await readdir(path)).toEqual(["inner"]);
    expect(await readFile(join(path, "inner/new"), "utf8")).toBe("text");
    expect(await readdir(folder)).toEqual(["model"]);
  });

  test("is untouched where the writer throws, and its error comes through", async () => {
    const path = join(folder, "model");
    await writeFolderAtomically(path, (temporary) => writeFile(join(temporary, "kept"), ""));
    const failed = writeFolderAtomically(path, async (temporary) => {
      await writeFile(join(temporary, "half"), "");
      throw new TypeError("stop");
    });
    await expect(failed).rejects.toThrow(new TypeError("stop"));
    expect(await readdir(path)).toEqual(["kept"]);
    expect(await readdir(folder)).toEqual(["model"]);
  });
});

describe("leftovers", () => {
  test("of processes that ended are removed by the next write; others stay", async () => {
    leaveBehind("tmp", ["model", "step-5"]);
    const ownUnfinished = nameBeside(join(folder, "mine"));
    await writeFile(ownUnfinished, "");
    await writeFile(join(folder, "notes.tmp-1"), "");
    const elsewhere = join(folder, "step-1.tmp-1-0a-01234567-another.machine");
    await mkdir(elsewhere);
    expect(await readdir(folder)).toHaveLength(5);
    await writeFileAtomically(join(folder, "file"), "");
    expect((await readdir(folder)).toSorted().map((name) => join(folder, name))).toEqual(
      [join(folder, "file"), ownUnfinished, join(folder, "notes.tmp-1"), elsewhere].toSorted(),
    );
  });

  test("that hold the only copy of a replaced folder are put back", async () => {
    leaveBehind("old", ["model", "present"]);
    await mkdir(join(folder, "present"));
    expect(await removeLeftovers(folder)).toHaveLength(2);
    expect((await readdir(folder)).toSorted()).toEqual(["model", "present"]);
    expect(await readFile(join(folder, "model/content"), "utf8")).toBe("model");
    expect(await readdir(join(folder, "present"))).toEqual([]);
  });
});

describe("a full disk", () => {
  test("is reported by the writer of a file", async ({ skip }) => {
    skip(!existsSync("/dev/full"), "this system has no /dev/full");
    const writer = new FileWriter(await open("/dev/full", "w"));
    const error: unknown = await writer.write(new Uint8Array(10)).catch((reason: unknown) => reason);
    await writer.abandon();
    const translated = asWriteError(error, "runs/a/step-5", 12_345_678) as RunError;
    expect(translated).toBeInstanceOf(RunError);
    expect(translated.code).toBe("disk_full");
    expect(translated.message).toMatch(
      /^the disk is full\n +where: +runs\/a\/step-5\n +expected: 11\.8 MiB of free space\n +received: ENOSPC.*\n +to do: +free some space.*everything saved earlier is intact$/,
    );
  });

  test("leaves the earlier files of every writer and no part of the new", async ({ skip }) => {
    const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=4m", "none", folder]);
    skip(mounted.status !== 0, "mounting a small disk needs root");
    try {
      const floats = (name: string, count: number) => ({
        name,
        dtype: "f32" as const,
        shape: [count],
        data: () => new Float32Array(count).fill(count),
      });
      const small = { tensors: [floats("w", 10_000)] };
      const large = { tensors: [floats("w", 10_000), floats("v", 1_500_000)] };
      const stateOf = ({ tensors }: typeof small, step: number) => ({
        pieces: tensors.map(({ name, shape, data }) => {
          const values = data();
          const piece = { name, shape, box: { starts: [0], sizes: shape }, start: 0, end: values.length };
          return pieceInMemory("parameters", piece, values);
        }),
        state: { step },
      });
      await saveTrainingState(join(folder, "checkpoints"), 1, stateOf(small, 1), { keepLast: 1 });
      const model = join(folder, "model");
      await writeSafetensors(model, small.tensors);
      await writeFileAtomically(join(folder, "file"), "text");
      const before = await readdir(folder, { recursive: true });

      const errors = [
        await failureOf(
          saveTrainingState(join(folder, "checkpoints"), 2, stateOf(large, 2), { keepLast: 1 }),
        ),
        await failureOf(writeSafetensors(model, large.tensors)),
        await failureOf(writeSafetensors(model, large.tensors, { maxShardBytes: 50_000 })),
        await failureOf(writeFileAtomically(join(folder, "file"), new Uint8Array(5_000_000))),
        await failureOf(
          writeFolderAtomically(model, (temporary) =>
            writeFile(join(temporary, "a"), new Uint8Array(5_000_000)),
          ),
        ),
      ];
      for (const error of errors) {
        expect(error.code).toBe("disk_full");
        expect(error.message).toMatch(/free some space[\s\S]*everything saved earlier is intact/);
      }
      expect(errors[0]!.message).toMatch(/step-2[\s\S]*expected: 5\.8 MiB of free space/);
      expect((await readdir(folder, { recursive: true })).toSorted()).toEqual(before.toSorted());
      expect((await latestCheckpoint(join(folder, "checkpoints"))).checkpoint?.step).toBe(1);
      expect(await readFile(join(folder, "file"), "utf8")).toBe("text");
    } finally {
      spawnSync("umount", [folder]);
    }
  });
});
