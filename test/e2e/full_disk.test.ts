import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { afterAll, expect, test } from "vitest";
import { Workplace } from "./support.ts";

const place = new Workplace();
const disk = place.path("disk");

/** Mounts a small file system of its own; tells why not where that is not allowed. */
function mountSmallDisk(): string | undefined {
  if (process.platform !== "linux" || process.getuid?.() !== 0)
    return "only root on Linux can mount a small disk";
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], { stdio: "pipe" });
    return undefined;
  } catch (error) {
    return `cannot mount a small disk: ${(error as Error).message}`;
  }
}

const obstacle = mountSmallDisk();

afterAll(() => {
  if (obstacle === undefined) execFileSync("umount", ["-l", disk]);
  place[Symbol.dispose]();
});

test.skipIf(obstacle !== undefined)(
  `a disk that is full at a checkpoint: the earlier ones stay whole, and the run goes on when there is room${obstacle === undefined ? "" : ` (skipped: ${obstacle})`}`,
  async () => {
    const config = place.config({
      output_dir: "disk/out",
      data: { cache_dir: "cache" },
      checkpoint: { every_steps: 2, keep_last: 20 },
    });
    const { status, output, errors } = await place.run(["train", config]);
    expect(status).toBe(1);
    const saved = [...output.matchAll(/^saved (disk\/out\/checkpoints\/step-(\d+))$/gm)];
    expect(saved.length).toBeGreaterThan(0);
    const next = Number(saved.at(-1)![2]) + 2;
    expect(errors).toMatch(/^the disk is full\n/);
    expect(errors).toContain(`  where:    disk/out/checkpoints/step-${next}\n`);
    expect(errors).toMatch(/ {2}expected: [\d.]+ KiB of free space\n/);
    expect(errors).toContain(
      "  to do:    free some space or write to another disk, then run again; what was unfinished has been removed and everything saved earlier is intact\n",
    );
    expect(place.list("disk", "out", "checkpoints").length).toBe(saved.length);

    const again = await place.run(["train", config, "--resume"]);
    expect(again.status).toBe(1);
    expect(again.output).toContain(`resumed from disk/out/checkpoints/step-${next - 2}\n`);
    expect(place.list("disk", "out", "checkpoints").length).toBe(saved.length);

    execFileSync("mount", ["-o", "remount,size=20m", disk]);
    await place.train([config, "--resume"]);
    using reference = new Workplace();
    await reference.train([reference.config()]);
    expect(place.losses("disk/out")).toEqual(reference.losses());
    expect(place.hash("disk", "out", "model", "model.safetensors")).toBe(
      reference.hash("out", "model", "model.safetensors"),
    );
  },
);
