import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { afterAll, describe, expect, test } from "vitest";
import { type Config, Workplace } from "./support.ts";

/** Disks and limits of states that a training cannot use: one error, nothing left behind. */

const place = new Workplace();
const mounted: string[] = [];

/** Mounts a file system of its own; tells why not where that is not allowed. */
function mountDisk(name: string, options: string): string | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "only root on Linux can mount a disk";
  mkdirSync(place.path(name));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", place.path(name)], { stdio: "pipe" });
    mounted.push(place.path(name));
    return undefined;
  } catch (error) {
    return `cannot mount a disk: ${(error as Error).message}`;
  }
}

const obstacle = mountDisk("small", "size=100k") ?? mountDisk("frozen", "size=1m,ro");
const skipped = obstacle === undefined ? "" : ` (skipped: ${obstacle})`;

afterAll(() => {
  for (const path of mounted) execFileSync("umount", ["-l", path]);
  place[Symbol.dispose]();
});

/** Trains with what cannot work, on one rank or several; the error, once it is known to be the only thing left. */
async function refused(config: Config, ranks: readonly string[], status: number): Promise<string> {
  const before = place.list();
  const file = place.config(config);
  const outcome = await place.run(["train", file, ...ranks]);
  expect([outcome.status, /^\s+at /m.test(outcome.errors)]).toEqual([status, false]);
  const added = place.list().filter((name) => !before.includes(name) && name !== file && name !== "out");
  expect(added).toEqual([]);
  if (place.list().includes("out")) {
    // What was learnt of the text is whole and serves the next run.
    expect(place.list("out").filter((name) => !["cache", "tokenizer"].includes(name))).toEqual([]);
  }
  return outcome.errors;
}

const offload = (nvme_path: string): Config => ({
  zero_optimization: { stage: 3, offload_optimizer: { device: "nvme", nvme_path } },
});

describe.each([[[]], [["--ranks", "2"]]])("%j", (ranks) => {
  test.skipIf(obstacle !== undefined)(`a disk with too little room${skipped}`, async () => {
    const errors = await refused({ ...offload("small"), train_batch_size: 4 }, ranks, 1);
    expect(errors).toMatch(/^the disk is full\n {2}where: {4}(\S*\/)?small\n/);
    expect(errors).toMatch(/ {2}expected: [\d.]+ KiB of free space\n/);
    expect(errors).toContain("set nvme_path to a folder on another disk");
    expect(readdirSync(place.path("small"))).toEqual([]);
  });

  test.skipIf(obstacle !== undefined)(`a disk that is read-only${skipped}`, async () => {
    const errors = await refused({ ...offload("frozen"), train_batch_size: 4 }, ranks, 2);
    expect(errors).toMatch(
      /^the folder for states on disk cannot be written\n {2}where: {4}(\S*\/)?frozen\n/,
    );
    expect(errors).toContain("Read-only file system");
  });

  test("a limit too small for any plan, and the smallest that would do", async () => {
    const memory = { limit: "100MiB", nvme_path: "." };
    const errors = await refused({ memory, train_batch_size: 4 }, ranks, 2);
    expect(errors).toMatch(
      /^no placement of the training fits in the memory limit\n {2}where: {4}memory\.limit\n {2}expected: at least [\d.]+ MiB\n {2}received: 100 MiB\n/,
    );
  });
});

test("the smallest limit that is named does", async () => {
  const memory = { limit: "100MiB", nvme_path: "." };
  const errors = await refused({ memory }, [], 2);
  const least = Number(/at least ([\d.]+) MiB/.exec(errors)![1]);
  // What the process holds before it trains is not the same every time.
  await place.train([
    place.config({ memory: { ...memory, limit: `${Math.ceil(least) + 16}MiB` }, max_steps: 2 }),
  ]);
});
