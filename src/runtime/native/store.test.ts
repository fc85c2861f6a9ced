import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { TensorData } from "../../base/dtype.ts";
import { PhiloxStream } from "../../base/random.ts";
import type { StoreOptions } from "../store.ts";
import { createNativeBackend } from "./backend.ts";

const backend = createNativeBackend({ threads: 1 });
const folder = mkdtempSync(join(tmpdir(), "slipstream-store-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function bytesOf({ buffer, byteOffset, byteLength }: TensorData): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

for (const direct of [true, false]) {
  const how = direct ? "past the page cache" : "through the page cache";

  test(`regions of odd lengths at odd places keep their neighbours, ${how}`, async () => {
    const bytes = 300_000;
    const store = backend.openStore!(folder, bytes, { direct });
    expect(store.bytes).toBe(303_104);
    const model = new Uint8Array(store.bytes);
    const random = new PhiloxStream(7);
    const draw = (bound: number): number => random.nextBelow(bound);
    const whole = new Uint8Array(store.bytes).fill(9);
    await store.read(0, whole);
    expect(whole).toEqual(model);
    for (let turn = 0; turn < 60; turn++) {
      const start = draw(bytes - 1);
      const length = 1 + draw(Math.min(bytes - start, turn % 3 === 0 ? 9000 : 100_000));
      // Memory of every alignment: allocated memory begins on a page.
      const shift = draw(2) * draw(64);
      const memory = (backend.allocate("u8", length + shift) as Uint8Array).subarray(shift);
      for (let index = 0; index < length; index++) memory[index] = draw(256);
      model.set(memory, start);
      await store.write(start, memory);
      const from = draw(bytes - 1);
      const back = new Uint8Array(1 + draw(bytes - from));
      await store.read(from, back);
      expect(Buffer.compare(back, model.subarray(from, from + back.length))).toBe(0);
    }
    await store.read(0, whole);
    expect(Buffer.compare(whole, model)).toBe(0);
    store.close();
  });

  test(`transfers longer than a piece, aligned and not, ${how}`, async () => {
    const length = 2 ** 23 + 4096 * 3 + 20;
    const store = backend.openStore!(folder, 2 * length, { direct });
    const values = backend.allocate("i32", length / 4) as Int32Array;
    for (let index = 0; index < values.length; index++) values[index] = Math.imul(index, 0x9e3779b1);
    await Promise.all([store.write(0, values), store.write(length, values)]);
    for (const [offset, into] of [
      [0, backend.allocate("i32", length / 4)],
      [length, new Int32Array(length / 4)],
    ] as const) {
      await store.read(offset, into);
      expect(Buffer.compare(bytesOf(into), bytesOf(values))).toBe(0);
    }
    expect(store.traffic()).toMatchObject({ readBytes: 2 * length, writtenBytes: 2 * length });
    store.close();
  });
}

const ways: readonly StoreOptions[] = [
  { requestBytes: 4096, queueDepth: 3 },
  { requestBytes: 5000, queueDepth: 64, threads: 3 },
  { requestBytes: 2 ** 16, queueDepth: 1, threads: 2 },
  { requestBytes: 2 ** 12, threads: 2, direct: false },
];

test.each(ways)("requests of any size, number and threads move the same bytes: %j", async (options) => {
  const length = 2 ** 20 + 4096 + 36;
  const store = backend.openStore!(folder, 2 * length, options);
  const values = backend.allocate("i32", length / 4) as Int32Array;
  for (let index = 0; index < values.length; index++) values[index] = Math.imul(index, 0x9e3779b1);
  await Promise.all([store.write(0, values), store.write(length, values)]);
  const [first, second] = [backend.allocate("i32", length / 4), new Int32Array(length / 4)];
  await Promise.all([store.read(0, first), store.read(length, second)]);
  for (const back of [first, second]) expect(Buffer.compare(bytesOf(back), bytesOf(values))).toBe(0);
  expect(store.traffic()).toMatchObject({ readBytes: 2 * length, writtenBytes: 2 * length });
  store.close();
});

test("nothing is left behind, not even while it is open", () => {
  const store = backend.openStore!(folder, 10_000);
  expect(readdirSync(folder).filter((name) => name.startsWith("slipstream"))).toEqual([]);
  store.close();
  expect(() => store.traffic()).toThrow(/closed/);
});

test("a transfer behind the end is refused", async () => {
  const store = backend.openStore!(folder, 4096);
  await expect(async () => await store.read(4000, new Uint8Array(97))).rejects.toThrow(/behind the end/);
  store.close();
});

test("a folder that is missing, or a file in its place", () => {
  expect(() => backend.openStore!(join(folder, "none"), 4096)).toThrow(
    /^the folder for states on disk does not exist\n {2}where: {4}.*none\n[\s\S]*set nvme_path to one that exists/,
  );
  expect(() => backend.openStore!("/dev/null", 4096)).toThrow(/does not exist/);
});

test.skipIf(process.getuid?.() === 0)("a folder that may not be written", () => {
  const locked = join(folder, "locked");
  mkdirSync(locked);
  chmodSync(locked, 0o500);
  expect(() => backend.openStore!(locked, 4096)).toThrow(
    /cannot be written[\s\S]*nvme_path to another folder/,
  );
  chmodSync(locked, 0o700);
});

const mountable = process.platform === "linux" && process.getuid?.() === 0 && canMount();

function canMount(): boolean {
  const disk = join(folder, "disk");
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], { stdio: "pipe" });
    afterAll(() => execFileSync("umount", ["-l", disk]));
    return true;
  } catch {
    return false;
  }
}

test.runIf(mountable)("a disk that is full is known at once, and one that is read-only", () => {
  const disk = join(folder, "disk");
  expect(() => backend.openStore!(disk, 2 ** 21)).toThrow(
    /^the disk is full\n[\s\S]*expected: 2 MiB of free space\n[\s\S]*nvme_path to a folder on another disk/,
  );
  expect(readdirSync(disk)).toEqual([]);
  backend.openStore!(disk, 2 ** 19).close();
  execFileSync("mount", ["-o", "remount,ro", disk]);
  expect(() => backend.openStore!(disk, 4096)).toThrow(/cannot be written/);
});
